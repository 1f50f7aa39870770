package import Foundation
package import NibbleCore

/// One GGUF file (version 2 or 3), mapped into memory, under its own names.
///
/// ``GGUFCheckpoint`` offers the same tensors under Hugging Face's names. Format:
/// <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
package struct GGUFFile: Sendable {
    /// What the file says about a tensor.
    package struct TensorInfo: Sendable {
        package let type: GGUFTensorType
        /// Outermost extent first, as everywhere in Nibble (the file lists them the other way round).
        package let shape: Shape
        /// From the file's start.
        package let byteRange: Range<Int>
    }

    package let version: Int
    package let metadata: [String: GGUFValue]
    /// In the order of the file.
    package let names: [String]
    private let tensors: [String: TensorInfo]
    private let metadataRange: Range<Int>
    let file: MappedFile

    /// - Throws: ``CheckpointError``.
    /// - Complexity: linear in the header; the tensors' data are not touched.
    package init(_ url: URL) throws {
        file = try MappedFile(url)
        try file.refusePlaceholder()
        let header = try GGUFHeader(file)
        version = header.version
        metadata = header.metadata
        metadataRange = header.metadataRange
        names = header.entries.map(\.name)
        tensors = Dictionary(
            header.entries.map { ($0.name, TensorInfo(type: $0.type, shape: $0.shape, byteRange: $0.range)) },
            uniquingKeysWith: { first, _ in first })
    }

    package var url: URL { file.url }

    /// `general.architecture`: `llama`, `qwen2`, `gemma` …
    package var architecture: String? { metadata["general.architecture"]?.string }

    /// Writes a GGUF file with the same metadata and no tensors: it serves as a tokenizer.
    /// - Throws: ``CheckpointError/unwritable(file:reason:)``
    package func writeMetadata(to url: URL) throws {
        let output = try AtomicFile(url)
        var head = Array("GGUF".utf8)
        withUnsafeBytes(of: UInt32(version).littleEndian) { head += $0 }
        for count in [0, metadata.count] { withUnsafeBytes(of: UInt64(count).littleEndian) { head += $0 } }
        try head.withUnsafeBytes { try output.write($0) }
        try output.write(UnsafeRawBufferPointer(rebasing: file.bytes[metadataRange]))
        try output.finish()
        try output.commit()
    }

    package func info(_ name: String) -> TensorInfo? { tensors[name] }

    /// The tensor's elements. Those stored one by one are a view of the file; blocks are dequantized.
    /// - Parameter dtype: `float32`, `float16` or `bfloat16`, for blocks only.
    /// - Throws: ``CheckpointError/noSuchTensor(name:files:)``.
    package func tensor(_ name: String, dequantizedTo dtype: DType = .float32) throws -> Tensor {
        let info = try known(name)
        if let stored = info.type.dtype { return file.tensor(stored, info.shape, at: info.byteRange.lowerBound) }
        return copy(info, dequantizedTo: dtype) { $0 }
    }

    /// A copy of the tensor's elements whose row `i` is the file's row `source(i)`. Blocks are dequantized.
    func tensor(_ name: String, dequantizedTo dtype: DType, rowOrder source: (Int) -> Int) throws -> Tensor {
        try copy(known(name), dequantizedTo: dtype, rowOrder: source)
    }

    private func known(_ name: String) throws -> TensorInfo {
        guard let info = tensors[name] else { throw CheckpointError.noSuchTensor(name: name, files: [file.path]) }
        return info
    }

    private func copy(_ info: TensorInfo, dequantizedTo dtype: DType, rowOrder source: (Int) -> Int) -> Tensor {
        let result = Tensor.host(info.type.dtype ?? dtype, info.shape)
        let width = info.shape.last
        guard info.shape.count > 0 else { return result }
        let rows = info.shape.count / width
        let data = UnsafeRawBufferPointer(rebasing: file.bytes[info.byteRange])
        let rowByteCount = data.count / rows
        var scratch = [Float](repeating: 0, count: info.type.dtype == nil ? width : 0)
        for row in 0..<rows {
            let stored = UnsafeRawBufferPointer(rebasing: data[source(row) * rowByteCount..<(source(row) + 1) * rowByteCount])
            let target = UnsafeMutableRawBufferPointer(
                rebasing: result.mutableHostBytes[
                    row * width * result.dtype.byteCount..<(row + 1) * width * result.dtype.byteCount])
            if info.type.dtype != nil {
                target.copyMemory(from: stored)
            } else {
                Self.dequantize(stored, info.type, into: target, dtype, &scratch)
            }
        }
        return result
    }

    private static func dequantize(
        _ stored: UnsafeRawBufferPointer, _ type: GGUFTensorType, into target: UnsafeMutableRawBufferPointer, _ dtype: DType,
        _ scratch: inout [Float]
    ) {
        guard let source = stored.bindMemory(to: UInt8.self).baseAddress else { return }
        let blocks = stored.count / type.blockByteCount
        scratch.withUnsafeMutableBufferPointer { row in
            guard let floats = row.baseAddress else { return }
            type.dequantize(source, blocks: blocks, into: floats)
            switch dtype {
            case .float16:
                let halves = target.bindMemory(to: UInt16.self)
                for index in row.indices { halves[index] = halfBits(row[index]) }
            case .bfloat16:
                let brains = target.bindMemory(to: BFloat16.self)
                for index in row.indices { brains[index] = BFloat16(row[index]) }
            default:
                target.copyMemory(from: UnsafeRawBufferPointer(row))
            }
        }
    }
}
