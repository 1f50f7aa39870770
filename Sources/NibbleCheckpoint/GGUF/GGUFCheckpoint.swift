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

    /// A tensor of the file, or one matrix of it.
    private struct Source: Sendable {
        let info: GGUFFile.TensorInfo
        var change = Change.none

        var shape: Shape {
            guard case .split = change else { return info.shape }
            var dimensions = info.shape.dimensions
            dimensions[info.shape.rank - 2] *= 2
            return Shape(dimensions)
        }

        /// All tensors that it is made of.
        var parts: [GGUFFile.TensorInfo] {
            if case .split(let second) = change { [info, second] } else { [info] }
        }
    }

    /// A ``GGUFNames/Change`` with what it takes to undo it.
    private enum Change: Sendable {
        case none, addedOne
        case interleavedHeads(Int)
        case split(second: GGUFFile.TensorInfo)
    }

    /// - Parameter dtype: `float32`, `float16` or `bfloat16`.
    /// - Throws: ``CheckpointError``, also for an architecture whose names are not known.
    package init(_ url: URL, dequantizedTo dtype: DType = .float32) throws {
        precondition([.float32, .float16, .bfloat16].contains(dtype), "blocks cannot be dequantized to \(dtype)")
        let file = try GGUFFile(url)
        config = try GGUFNames.config(file)
        let architecture = file.architecture ?? ""
        let hasExperts = GGUFNames.hasExperts(file)
        func target(_ name: String) -> String? {
            GGUFNames.huggingFaceName(name, architecture: architecture, hasExperts: hasExperts)
        }
        var sources: [ByteText: Source] = [:]
        for name in file.names {
            guard let target = target(name), let info = file.info(name) else { continue }
            if name.containsBytes("_exps.") { try Self.requireExperts(name, info, file) }
            if target.containsBytes("#") {
                for index in 0..<info.shape[0] {
                    sources[target.replacing("#", with: "\(index)")] = Source(info: info.matrix(index))
                }
            } else {
                let change = GGUFNames.change(name, architecture: architecture, hasExperts: hasExperts)
                sources[target] = try Self.source(name, info, change, architecture, file)
            }
        }
        self.file = file
        self.dtype = dtype
        self.sources = sources
        var unreadable: [ByteText: String] = [:]
        // One expert stands for all.
        for name in file.unreadableNames { unreadable[target(name)?.replacing("#", with: "0") ?? name] = name }
        self.unreadable = unreadable
        names = sources.keys.map(\.text).sorted(by: NaturalOrder.precedes)
        unreadableNames = unreadable.keys.map(\.text).sorted(by: NaturalOrder.precedes)
    }

    private static func requireExperts(_ name: String, _ info: GGUFFile.TensorInfo, _ file: GGUFFile) throws {
        let experts = GGUFNames.expertCount(file) ?? 0
        guard info.shape.rank == 3, info.shape[0] == experts else {
            throw file.malformed(
                name, expected: "a matrix for each of \(experts) experts (\(file.architecture ?? "").expert_count)",
                found: "shape \(info.shape)")
        }
    }

    private static func source(
        _ name: String, _ info: GGUFFile.TensorInfo, _ change: GGUFNames.Change, _ architecture: String, _ file: GGUFFile
    ) throws -> Source {
        switch change {
        case .none: return Source(info: info)
        case .row: return Source(info: info.asMatrix)
        case .addedOne: return Source(info: info, change: .addedOne)
        case .split(let secondName):
            guard info.shape.rank >= 2, info.shape.count > 0, let second = file.info(secondName), second.shape == info.shape,
                second.type == info.type
            else {
                if file.unreadableNames.contains(secondName) { _ = try file.tensor(secondName) }
                throw file.malformed(
                    secondName, expected: "\(info.type) \(info.shape), as \(name)",
                    found: file.info(secondName).map { "\($0.type) \($0.shape)" } ?? "none")
            }
            return Source(info: info, change: .split(second: second))
        case .interleavedHeads(let key):
            // If the number of key heads is missing, there are as many as query heads.
            let value = file.metadata["\(architecture).\(key)"] ?? file.metadata["\(architecture).attention.head_count"]
            let rows = info.shape.rank == 0 ? 0 : info.shape[0]
            guard let heads = value?.int, heads > 0, rows % heads == 0, rows / heads % 2 == 0 else {
                throw file.malformed(
                    name, expected: "rows for \(architecture).\(key) heads of even size",
                    found: "\(rows) rows, \(value?.int.map(String.init) ?? "no") heads")
            }
            return Source(info: info, change: .interleavedHeads(heads))
        }
    }

    package var files: [URL] { file.urls }

    package var metadata: [String: String] {
        Dictionary(
            file.metadata.compactMap { key, value in value.string.map { (key.text, $0) } },
            uniquingKeysWith: { _, later in later })
    }

    package func descriptor(_ name: String) -> TensorDescriptor? {
        guard let source = sources[name] else { return nil }
        let info = source.info
        var isContiguous = info.type.dtype != nil
        if case .none = source.change {} else { isContiguous = false }
        return TensorDescriptor(
            dtype: info.type.dtype ?? dtype, shape: source.shape, file: info.url, byteOffset: info.byteRange.lowerBound,
            byteCount: info.byteRange.count, isContiguous: isContiguous)
    }

    package func tensor(_ name: String) throws -> Tensor {
        guard let source = sources[name] else {
            if let name = unreadable[name] { return try file.tensor(name) }
            throw CheckpointError.noSuchTensor(name: name, files: files.map(\.path))
        }
        switch source.change {
        case .none:
            return file.tensor(source.info, dequantizedTo: dtype)
        case .interleavedHeads(let heads):
            return unpermuted(source.info, heads: heads)
        case .addedOne:
            let copy = file.copy(source.info, dequantizedTo: dtype) { $0 }
            copy.subtractOne()
            return copy
        case .split:
            return joined(source)
        }
    }

    package func rows(_ name: String, _ range: Range<Int>) throws -> Tensor {
        guard let source = sources[name], case .none = source.change, source.shape.rank == 3, range.count == 1 else {
            return try tensor(name).rows(range)
        }
        return file.tensor(source.info.matrix(range.lowerBound), dequantizedTo: dtype).viewed(as: source.shape.replacingFirst(1))
    }

    /// Rows of one head stand in the file as 0, D/2, 1, D/2 + 1 …
    private func unpermuted(_ info: GGUFFile.TensorInfo, heads: Int) -> Tensor {
        let headSize = info.shape[0] / heads
        // A bias is one row in memory, with an element for each row of its matrix.
        guard info.shape.rank > 1 else {
            return file.tensor(info, dequantizedTo: dtype).permuted { Self.storedRow($0, headSize) }
        }
        return file.copy(info, dequantizedTo: dtype) { Self.storedRow($0, headSize) }
    }

    /// Each matrix of the first part followed by the second's.
    private func joined(_ source: Source) -> Tensor {
        let halves = source.parts.map { file.tensor($0, dequantizedTo: dtype) }
        let result = Tensor.host(halves[0].dtype, source.shape)
        let matrices = source.shape.rank > 2 ? source.shape.dimensions.dropLast(2).reduce(1, *) : 1
        guard matrices > 0 else { return result }
        let byteCount = halves[0].hostBytes.count / matrices
        for index in 0..<2 * matrices {
            let (matrix, half) = index.quotientAndRemainder(dividingBy: 2)
            let bytes = halves[half].hostBytes[matrix * byteCount..<(matrix + 1) * byteCount]
            UnsafeMutableRawBufferPointer(rebasing: result.mutableHostBytes[index * byteCount..<(index + 1) * byteCount])
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes))
        }
        return result
    }

    private static func storedRow(_ row: Int, _ headSize: Int) -> Int {
        let (head, within) = (row / headSize, row % headSize)
        let (half, index) = (within / (headSize / 2), within % (headSize / 2))
        return head * headSize + 2 * index + half
    }

    package func prefetch(_ name: String) { sources[name]?.parts.forEach(file.prefetch) }

    package func dropPages(_ name: String) { sources[name]?.parts.forEach(file.dropPages) }
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
