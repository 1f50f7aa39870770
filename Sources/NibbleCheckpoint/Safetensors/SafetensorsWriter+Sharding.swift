package import Foundation
import Glibc
package import NibbleCore

extension SafetensorsWriter {
    /// Writes `model.safetensors`, or `model-00001-of-0000N.safetensors` … and `model.safetensors.index.json` when the
    /// tensors take more than one shard.
    ///
    /// Shards are divided as the reference library divides them: in the given order, with a new shard whenever the next
    /// tensor would exceed the limit; a tensor larger than the limit gets a shard of its own. Files get their final names
    /// after all are written; weights of an earlier save that would be read instead of these are removed.
    /// - Parameters:
    ///   - maximumShardByteCount: counts tensor data; the reference library's default is 50 GB.
    ///   - extraMetadata: written to the index beside `total_size`.
    ///   - tensor: called once per specification, file by file; the result is on the CPU and fits the specification.
    /// - Returns: the weight files, in order.
    /// - Throws: ``CheckpointError``, or what `tensor` throws.
    @discardableResult
    package func writeSharded(
        _ specifications: [TensorSpecification], to folder: URL, maximumShardByteCount: Int = 50_000_000_000,
        extraMetadata: JSONObject = [:], tensor: (TensorSpecification) throws -> Tensor
    ) throws -> [URL] {
        let shards = Self.split(specifications, maximumByteCount: maximumShardByteCount)
        let names = shards.indices.map { Self.shardName($0, of: shards.count) }
        var outputs: [AtomicFile] = []
        for (shard, name) in zip(shards, names) {
            try outputs.append(writeTemporary(shard, to: folder.appending(path: name), tensor: tensor))
        }
        if shards.count > 1 {
            try outputs.append(writeIndex(shards, names, extraMetadata, to: folder.appending(path: Self.indexName)))
        }
        for output in outputs { try output.commit() }
        try removeStaleWeights(in: folder, keeping: Set(outputs.map(\.url.lastPathComponent)))
        return names.map { folder.appending(path: $0) }
    }

    static func split(_ specifications: [TensorSpecification], maximumByteCount: Int) -> [[TensorSpecification]] {
        var shards: [[TensorSpecification]] = []
        var current: [TensorSpecification] = []
        var size = 0
        for specification in specifications {
            if specification.byteCount > maximumByteCount {
                shards.append([specification])
                continue
            }
            if size + specification.byteCount > maximumByteCount {
                shards.append(current)
                (current, size) = ([], 0)
            }
            current.append(specification)
            size += specification.byteCount
        }
        if !current.isEmpty || shards.isEmpty { shards.append(current) }
        return shards
    }

    private static let indexName = "model.safetensors.index.json"

    private static func shardName(_ index: Int, of count: Int) -> String {
        func padded(_ number: Int) -> String {
            let digits = String(number)
            return String(repeating: "0", count: max(5 - digits.count, 0)) + digits
        }
        return count == 1 ? "model.safetensors" : "model-\(padded(index + 1))-of-\(padded(count)).safetensors"
    }

    private func writeIndex(
        _ shards: [[TensorSpecification]], _ names: [String], _ extra: JSONObject, to file: URL
    ) throws -> AtomicFile {
        var metadata = extra
        metadata["total_size"] = .int(shards.joined().reduce(0) { $0 + $1.byteCount })
        var map = JSONObject()
        for (shard, name) in zip(shards, names) {
            for specification in shard where !map.insert(specification.name, .string(name)) {
                throw CheckpointError.malformed(
                    file: file.path, tensor: specification.name, expected: "each name once", found: "a second")
            }
        }
        let index: JSONValue = ["metadata": .object(metadata), "weight_map": .object(map)]
        let output = try AtomicFile(file)
        try Array((index.encoded(.pretty, sortedKeys: true, escapingNonASCII: true) + "\n").utf8).withUnsafeBytes {
            try output.write($0)
        }
        try output.finish()
        return output
    }

    /// A single file is preferred to an index, so one of an earlier save must not remain beside new shards.
    private func removeStaleWeights(in folder: URL, keeping: Set<String>) throws {
        let found = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        for name in found where !keeping.contains(name) && Self.isWeightName(name) {
            let file = folder.appending(path: name)
            do {
                try FileManager.default.removeItem(at: file)
            } catch {
                throw FileError(file, .removed, error)
            }
        }
    }

    /// `model.safetensors`, its index, or a shard of any count.
    private static func isWeightName(_ name: String) -> Bool {
        if name == "model.safetensors" || name == indexName { return true }
        guard name.hasPrefix("model-"), name.hasSuffix(".safetensors") else { return false }
        let parts = name.dropFirst("model-".count).dropLast(".safetensors".count).split(separator: "-")
        func isNumber(_ text: Substring) -> Bool { text.count >= 5 && text.utf8.allSatisfy { (0x30...0x39).contains($0) } }
        return parts.count == 3 && isNumber(parts[0]) && parts[1] == "of" && isNumber(parts[2])
    }
}
