package import Foundation
package import NibbleCore

/// A GGUF model as a Hugging Face checkpoint, with Hugging Face's names and values.
///
/// Blocks are dequantized when a tensor is read, and what the converter changed (``GGUFNames/Change``) is undone.
package struct GGUFCheckpoint: Checkpoint {
    package let names: [String]
    package let unreadableNames: [String]
    /// The content of an equivalent `config.json`.
    package let config: JSONObject
    /// What blocks are dequantized to.
    package let dtype: DType
    package let file: GGUFFile
    private let sources: [ByteText: Source]
    /// Hugging Face's name → name in the file.
    private let unreadable: [ByteText: String]

    private struct Source: Sendable {
        let name: String
        let change: Change
    }

    /// A ``GGUFNames/Change`` with its number of heads.
    private enum Change: Sendable {
        case none, addedOne
        case interleavedHeads(Int)
    }

    /// - Parameter dtype: `float32`, `float16` or `bfloat16`.
    /// - Throws: ``CheckpointError``, also for an architecture whose names are not known.
    package init(_ url: URL, dequantizedTo dtype: DType = .float32) throws {
        precondition([.float32, .float16, .bfloat16].contains(dtype), "blocks cannot be dequantized to \(dtype)")
        let file = try GGUFFile(url)
        config = try GGUFNames.config(file)
        let architecture = file.architecture ?? ""
        var sources: [ByteText: Source] = [:]
        for name in file.names {
            guard let target = GGUFNames.huggingFaceName(name, architecture: architecture), let info = file.info(name) else {
                continue
            }
            sources[target] = try Source(name: name, change: Self.change(name, info, architecture, file))
        }
        self.file = file
        self.dtype = dtype
        self.sources = sources
        var unreadable: [ByteText: String] = [:]
        for name in file.unreadableNames {
            unreadable[GGUFNames.huggingFaceName(name, architecture: architecture) ?? name] = name
        }
        self.unreadable = unreadable
        names = sources.keys.map(\.text).sorted(by: NaturalOrder.precedes)
        unreadableNames = unreadable.keys.map(\.text).sorted(by: NaturalOrder.precedes)
    }

    private static func change(
        _ name: String, _ info: GGUFFile.TensorInfo, _ architecture: String, _ file: GGUFFile
    ) throws -> Change {
        switch GGUFNames.change(name, architecture: architecture) {
        case .none: return .none
        case .addedOne: return .addedOne
        case .interleavedHeads(let key):
            // If the number of key heads is missing, there are as many as query heads.
            let value = file.metadata["\(architecture).\(key)"] ?? file.metadata["\(architecture).attention.head_count"]
            let rows = info.shape.rank == 0 ? 0 : info.shape[0]
            guard let heads = value?.int, heads > 0, rows % heads == 0, rows / heads % 2 == 0 else {
                throw file.malformed(
                    name, expected: "rows for \(architecture).\(key) heads of even size",
                    found: "\(rows) rows, \(value?.int.map(String.init) ?? "no") heads")
            }
            return .interleavedHeads(heads)
        }
    }

    package var files: [URL] { file.urls }

    package var metadata: [String: String] {
        Dictionary(
            file.metadata.compactMap { key, value in value.string.map { (key.text, $0) } },
            uniquingKeysWith: { _, later in later })
    }

    package func descriptor(_ name: String) -> TensorDescriptor? {
        guard let source = sources[name], let info = file.info(source.name) else { return nil }
        var isContiguous = info.type.dtype != nil
        if case .none = source.change {} else { isContiguous = false }
        return TensorDescriptor(
            dtype: info.type.dtype ?? dtype, shape: info.shape, file: info.url, byteOffset: info.byteRange.lowerBound,
            byteCount: info.byteRange.count, isContiguous: isContiguous)
    }

    package func tensor(_ name: String) throws -> Tensor {
        guard let source = sources[name] else {
            if let name = unreadable[name] { return try file.tensor(name) }
            throw CheckpointError.noSuchTensor(name: name, files: files.map(\.path))
        }
        switch source.change {
        case .none:
            return try file.tensor(source.name, dequantizedTo: dtype)
        case .interleavedHeads(let heads):
            return try unpermuted(source.name, heads: heads)
        case .addedOne:
            let copy = try file.tensor(source.name, dequantizedTo: dtype) { $0 }
            copy.subtractOne()
            return copy
        }
    }

    /// Rows of one head stand in the file as 0, D/2, 1, D/2 + 1 …
    private func unpermuted(_ name: String, heads: Int) throws -> Tensor {
        guard let info = file.info(name) else { throw CheckpointError.noSuchTensor(name: name, files: files.map(\.path)) }
        let headSize = info.shape[0] / heads
        // A bias is one row in memory, with an element for each row of its matrix.
        guard info.shape.rank > 1 else { return try file.tensor(name).permuted { Self.storedRow($0, headSize) } }
        return try file.tensor(name, dequantizedTo: dtype) { Self.storedRow($0, headSize) }
    }

    private static func storedRow(_ row: Int, _ headSize: Int) -> Int {
        let (head, within) = (row / headSize, row % headSize)
        let (half, index) = (within / (headSize / 2), within % (headSize / 2))
        return head * headSize + 2 * index + half
    }

    package func prefetch(_ name: String) {
        if let info = sources[name].flatMap({ file.info($0.name) }) { file.prefetch(info) }
    }

    package func dropPages(_ name: String) {
        if let info = sources[name].flatMap({ file.info($0.name) }) { file.dropPages(info) }
    }
}

extension Tensor {
    /// A copy of a vector whose element `i` is element `source(i)`.
    fileprivate func permuted(_ source: (Int) -> Int) -> Tensor {
        let copy = Tensor.host(dtype, shape)
        let width = dtype.byteCount
        for index in 0..<count {
            let element = UnsafeRawBufferPointer(rebasing: hostBytes[source(index) * width..<(source(index) + 1) * width])
            UnsafeMutableRawBufferPointer(rebasing: copy.mutableHostBytes[index * width..<(index + 1) * width]).copyMemory(
                from: element)
        }
        return copy
    }

    fileprivate func subtractOne() {
        switch dtype {
        case .float32:
            let values = mutableHostElements(Float.self)
            for index in values.indices { values[index] -= 1 }
        case .float16:
            let values = mutableHostElements(Float16.self)
            for index in values.indices { values[index] = Float16(Float(values[index]) - 1) }
        case .bfloat16:
            let values = mutableHostElements(BFloat16.self)
            for index in values.indices { values[index] = BFloat16(Float(values[index]) - 1) }
        default: break
        }
    }
}
