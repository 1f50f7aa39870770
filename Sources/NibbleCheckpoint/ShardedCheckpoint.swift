package import Foundation
package import NibbleCore

/// A checkpoint in several files, tied together by an index.
///
/// As in the reference, a shard may hold tensors the index gives to another file or does not name at all: all are offered,
/// and of two with one name that of the later file (by name) counts.
package struct ShardedCheckpoint: Checkpoint {
    package let names: [String]
    package let metadata: [String: String]
    private let shards: [any Checkpoint]
    /// Tensor name → position in `shards`.
    private let owner: [String: Int]

    /// Opens every shard that `index` names.
    /// - Parameter open: reads one shard.
    /// - Throws: ``CheckpointError``.
    init(index: URL, open: (URL) throws -> any Checkpoint) throws {
        let content = try ShardIndex(index)
        let folder = index.deletingLastPathComponent()
        let shardNames = content.shards
        shards = try shardNames.map { name in
            let url = try CheckpointFiles.contained(name, in: folder, namedBy: index)
            guard FileManager.default.fileExists(atPath: url.path) else {
                throw CheckpointError.missingShard(index: index.path, shard: name)
            }
            return try open(url)
        }
        var owner: [String: Int] = [:]
        for (position, shard) in shards.enumerated() {
            for name in shard.names { owner[name] = position }
        }
        let positions = Dictionary(uniqueKeysWithValues: zip(shardNames, shards.indices))
        for (tensor, shard) in content.files {
            guard let position = positions[shard], shards[position].descriptor(tensor) != nil else {
                throw CheckpointError.missingFromShard(index: index.path, tensor: tensor, shard: shard)
            }
        }
        self.owner = owner
        names = owner.keys.sorted(by: NaturalOrder.precedes)
        metadata = content.metadata
    }

    package var files: [URL] { shards.flatMap(\.files) }

    package func descriptor(_ name: String) -> TensorDescriptor? { shard(of: name)?.descriptor(name) }

    package func tensor(_ name: String) throws -> Tensor {
        guard let shard = shard(of: name) else {
            throw CheckpointError.noSuchTensor(name: name, files: files.map(\.path))
        }
        return try shard.tensor(name)
    }

    package func prefetch(_ name: String) { shard(of: name)?.prefetch(name) }

    package func dropPages(_ name: String) { shard(of: name)?.dropPages(name) }

    package var firstFloatingPointDType: DType? { shards.first?.firstFloatingPointDType }

    private func shard(of name: String) -> (any Checkpoint)? { owner[name].map { shards[$0] } }
}

/// The content of a `….index.json`.
struct ShardIndex {
    /// Tensor name → file name.
    var files: [String: String] = [:]
    var metadata: [String: String] = [:]

    /// The files, sorted.
    var shards: [String] { Set(files.values).sorted() }

    init(_ url: URL) throws {
        let json: JSONValue
        do {
            json = try JSONValue(contentsOf: url, options: [.rejectDuplicateKeys, .nonFiniteNumbers])
        } catch JSONError.unreadable(let file, let reason) {
            throw CheckpointError.unreadable(file: file, reason: reason)
        } catch JSONError.syntax(_, _, let line, let column, let expected, let found) {
            throw CheckpointError.malformed(
                file: url.path, tensor: nil, expected: expected, found: "\(found) at line \(line), column \(column)")
        }
        guard let map = json["weight_map"]?.object else {
            throw CheckpointError.malformed(
                file: url.path, tensor: nil, expected: "an object weight_map", found: json["weight_map"]?.kind ?? "none")
        }
        for (tensor, value) in map {
            guard let file = value.string else {
                throw CheckpointError.malformed(file: url.path, tensor: tensor, expected: "a file name", found: value.kind)
            }
            files[tensor] = file
        }
        guard !files.isEmpty else {
            throw CheckpointError.malformed(
                file: url.path, tensor: nil, expected: "at least one tensor", found: "an empty weight_map")
        }
        for (key, value) in json["metadata"]?.object ?? [:] { metadata[key] = value.string ?? value.encoded() }
    }
}
