package import Foundation
package import NibbleCore

/// A checkpoint in several files that an index lists.
///
/// As in the reference library, the index only names the files. A shard may hold tensors that the index assigns to
/// another file or does not name: all of them are offered, and of two with the same name the one in the later file (by
/// name) counts. What the index promises and no file holds is an error for a model that needs it.
package struct ShardedCheckpoint: Checkpoint {
    package let names: [String]
    package let unreadableNames: [String]
    package let metadata: [String: String]
    private let shards: [any Checkpoint]
    /// Tensor name → index into `shards`.
    private let owner: [ByteText: Int]
    /// Tensors that are promised and not there.
    private let missing: [ByteText: CheckpointError]

    /// Opens the shards that `index` names.
    /// - Parameter open: reads one shard.
    /// - Throws: ``CheckpointError``, also where none of the shards is there.
    init(index: URL, open: (URL) throws -> any Checkpoint) throws {
        let content = try ShardIndex(index)
        let folder = index.deletingLastPathComponent()
        var shards: [any Checkpoint] = []
        var absent: Set<ByteText> = []
        for name in content.shards {
            let url = folder.appending(path: name)
            if FileManager.default.fileExists(atPath: url.path) {
                try shards.append(open(url))
            } else {
                absent.insert(ByteText(name))
            }
        }
        if shards.isEmpty, let first = content.shards.first {
            throw CheckpointError.missingShard(index: index.path, shard: first)
        }
        var owner: [ByteText: Int] = [:]
        for (position, shard) in shards.enumerated() {
            for name in shard.unreadableNames where owner[name] == nil { owner[name] = position }
            for name in shard.names { owner[name] = position }
        }
        var missing: [ByteText: CheckpointError] = [:]
        for (tensor, shard) in content.files where owner[tensor] == nil {
            // A tensor that is not where the index puts it is probably in a shard that is not there.
            let absentShard = absent.contains(ByteText(shard)) ? shard : absent.min()?.text
            missing[tensor] =
                absentShard.map { .missingShard(index: index.path, shard: $0) }
                ?? .missingFromShard(index: index.path, tensor: tensor.text, shard: shard)
        }
        names = Set(texts: shards.flatMap(\.names)).map(\.text).sorted(by: NaturalOrder.precedes)
        let readable = Set(texts: names)
        unreadableNames =
            Set(texts: shards.flatMap(\.unreadableNames) + missing.keys.map(\.text)).subtracting(readable).map(\.text)
            .sorted(by: NaturalOrder.precedes)
        self.shards = shards
        self.owner = owner
        self.missing = missing
        metadata = content.metadata
    }

    package var files: [URL] { shards.flatMap(\.files) }

    package func descriptor(_ name: String) -> TensorDescriptor? { shard(of: name)?.descriptor(name) }

    package func tensor(_ name: String) throws -> Tensor {
        guard let shard = shard(of: name) else {
            throw missing[name] ?? CheckpointError.noSuchTensor(name: name, files: files.map(\.path))
        }
        return try shard.tensor(name)
    }

    package func rows(_ name: String, _ range: Range<Int>) throws -> Tensor {
        try shard(of: name)?.rows(name, range) ?? tensor(name).rows(range)
    }

    package func prefetch(_ name: String) { shard(of: name)?.prefetch(name) }

    package func dropPages(_ name: String) { shard(of: name)?.dropPages(name) }

    package var firstFloatingPointDType: DType? { shards.first?.firstFloatingPointDType }

    private func shard(of name: String) -> (any Checkpoint)? { owner[name].map { shards[$0] } }
}

/// The content of a `….index.json`.
struct ShardIndex {
    /// Tensor name → path of its file, in plain form.
    var files: [ByteText: String] = [:]
    var metadata: [String: String] = [:]

    /// The files, sorted.
    var shards: [String] { Set(texts: files.values).sorted().map(\.text) }

    init(_ url: URL) throws {
        let json = try Self.read(url)
        guard let map = json["weight_map"]?.object else {
            throw CheckpointError.malformed(
                file: url.path, tensor: nil, expected: "an object weight_map", found: json["weight_map"]?.kind ?? "none")
        }
        for (tensor, value) in map {
            guard let file = value.string else {
                throw CheckpointError.malformed(file: url.path, tensor: tensor, expected: "a file name", found: value.kind)
            }
            files[tensor] = try CheckpointFiles.plainPath(file, namedBy: url)
        }
        guard !files.isEmpty else {
            throw CheckpointError.malformed(
                file: url.path, tensor: nil, expected: "at least one tensor", found: "an empty weight_map")
        }
        for (key, value) in json["metadata"]?.object ?? [:] { metadata[key] = value.string ?? value.encoded() }
    }

    private static func read(_ url: URL) throws -> JSONValue {
        do {
            return try JSONValue(contentsOf: url, options: [.rejectDuplicateKeys, .nonFiniteNumbers])
        } catch JSONError.unreadable(let file, let reason) {
            throw CheckpointError.unreadable(file: file, reason: reason)
        } catch JSONError.syntax(_, _, let line, let column, let expected, let found) {
            throw CheckpointError.malformed(
                file: url.path, tensor: nil, expected: expected, found: "\(found) at line \(line), column \(column)")
        }
    }
}
