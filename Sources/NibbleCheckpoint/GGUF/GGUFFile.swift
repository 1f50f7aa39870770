package import Foundation
package import NibbleCore

/// A GGUF model (version 2 or 3) under its own names, mapped into memory: one file, or the parts that it was split into.
///
/// ``GGUFCheckpoint`` offers the same tensors under Hugging Face's names. Format:
/// <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
package struct GGUFFile: Sendable {
    /// What the header says about a tensor.
    package struct TensorInfo: Sendable {
        package let type: GGUFTensorType
        /// Outermost extent first, as everywhere in Nibble (the file lists them the other way round).
        package let shape: Shape
        /// From the start of its part.
        package let byteRange: Range<Int>
        /// The file that holds it.
        package let url: URL
        fileprivate let part: Int

        /// The matrix of this index of a tensor of several.
        func matrix(_ index: Int) -> TensorInfo {
            let byteCount = byteRange.count / shape[0]
            let begin = byteRange.lowerBound + index * byteCount
            return TensorInfo(
                type: type, shape: Shape(shape.dimensions.dropFirst()), byteRange: begin..<begin + byteCount, url: url, part: part
            )
        }

        /// A vector as a matrix of one row; any other tensor as it is.
        var asMatrix: TensorInfo {
            guard shape.rank == 1 else { return self }
            return TensorInfo(type: type, shape: [1, shape[0]], byteRange: byteRange, url: url, part: part)
        }
    }

    /// The file that was opened. A model in parts may be opened by any of them.
    package let url: URL
    package let version: Int
    package let metadata: [ByteText: GGUFValue]
    /// In the order of the files.
    package let names: [String]
    /// Tensors of a type or a rank that is not supported; ``tensor(_:dequantizedTo:)`` throws the reason.
    package let unreadableNames: [String]
    private let tensors: [ByteText: TensorInfo]
    private let refusals: [ByteText: CheckpointError]
    private let metadataRanges: [(key: String, range: Range<Int>)]
    private let parts: [MappedFile]

    /// - Throws: ``CheckpointError``, also where a part of the model is missing.
    /// - Complexity: linear in the header; the tensors' data are not touched.
    package init(_ url: URL) throws {
        self.url = url
        let opened = try MappedFile(url)
        let header = try GGUFHeader(opened)
        let loaded = try GGUFSplit(header.metadata, opened)?.parts(opened, header) ?? [(opened, header)]
        version = header.version
        // Only the first part describes the model.
        metadata = loaded[0].header.metadata
        metadataRanges = loaded[0].header.metadataRanges
        parts = loaded.map(\.file)
        var (tensors, refusals): ([ByteText: TensorInfo], [ByteText: CheckpointError]) = ([:], [:])
        var names: [String] = []
        for (part, (file, header)) in loaded.enumerated() {
            for entry in header.entries {
                guard tensors[entry.name] == nil, refusals[entry.name] == nil else {
                    throw file.malformed(expected: "each tensor in one part", found: "a second \(entry.name)")
                }
                switch entry.content {
                case .elements(let type, let shape, let range):
                    names.append(entry.name)
                    tensors[entry.name] = TensorInfo(type: type, shape: shape, byteRange: range, url: file.url, part: part)
                case .unreadable(let error): refusals[entry.name] = error
                }
            }
        }
        self.names = names
        self.tensors = tensors
        self.refusals = refusals
        unreadableNames = refusals.keys.sorted().map(\.text)
    }

    /// Whether a file is a GGUF file: by its extension, or else by its first bytes.
    package static func isGGUF(_ url: URL) -> Bool {
        if url.pathExtension.lowercased() == "gguf" { return true }
        guard let file = try? FileHandle(forReadingFrom: url) else { return false }
        defer { try? file.close() }
        return (try? file.read(upToCount: 4))?.elementsEqual("GGUF".utf8) ?? false
    }

    package var urls: [URL] { parts.map(\.url) }

    /// `general.architecture`: `llama`, `qwen2`, `gemma` …
    package var architecture: String? { metadata["general.architecture"]?.string }

    /// Writes a GGUF file with the same metadata and without tensors, which serves as a tokenizer.
    /// - Throws: ``CheckpointError/unwritable(file:reason:)``
    package func writeMetadata(to url: URL) throws {
        let output = try AtomicFile(url)
        let kept = metadataRanges.filter { !$0.key.hasBytePrefix("split.") }
        var head = Array("GGUF".utf8)
        withUnsafeBytes(of: UInt32(version).littleEndian) { head += $0 }
        for count in [0, kept.count] { withUnsafeBytes(of: UInt64(count).littleEndian) { head += $0 } }
        try head.withUnsafeBytes { try output.write($0) }
        for (_, range) in kept { try output.write(UnsafeRawBufferPointer(rebasing: parts[0].bytes[range])) }
        try output.finish()
        try output.commit()
    }

    package func info(_ name: String) -> TensorInfo? { tensors[name] }

    func malformed(_ tensor: String? = nil, expected: String, found: String) -> CheckpointError {
        .malformed(file: (tensor.flatMap { info($0)?.url } ?? url).path, tensor: tensor, expected: expected, found: found)
    }

    func prefetch(_ info: TensorInfo) { parts[info.part].prefetch(info.byteRange) }

    func dropPages(_ info: TensorInfo) { parts[info.part].dropPages(info.byteRange) }

    // MARK: Elements

    /// The tensor's elements: a view of the file where they are stored one by one, dequantized from blocks otherwise.
    /// - Parameter dtype: `float32`, `float16` or `bfloat16`, for blocks only.
    /// - Throws: ``CheckpointError``.
    package func tensor(_ name: String, dequantizedTo dtype: DType = .float32) throws -> Tensor {
        tensor(try known(name), dequantizedTo: dtype)
    }

    /// As ``tensor(_:dequantizedTo:)`` of a tensor of this file, or of a part of one.
    func tensor(_ info: TensorInfo, dequantizedTo dtype: DType) -> Tensor {
        if let stored = info.type.dtype {
            return parts[info.part].tensor(stored, info.shape, at: info.byteRange.lowerBound)
        }
        return copy(info, dequantizedTo: dtype) { $0 }
    }

    private func known(_ name: String) throws -> TensorInfo {
        guard let info = tensors[name] else {
            throw refusals[name] ?? CheckpointError.noSuchTensor(name: name, files: urls.map(\.path))
        }
        return info
    }

    /// A copy of the tensor's elements whose row `i` is the file's row `source(i)`. Blocks are dequantized.
    func copy(_ info: TensorInfo, dequantizedTo dtype: DType, rowOrder source: (Int) -> Int) -> Tensor {
        let result = Tensor.decoded(info.type.dtype ?? dtype, info.shape)
        let width = info.shape.last
        guard info.shape.count > 0 else { return result }
        let rows = info.shape.count / width
        let data = UnsafeRawBufferPointer(rebasing: parts[info.part].bytes[info.byteRange])
        let rowByteCount = data.count / rows
        let resultByteCount = width * result.dtype.byteCount
        var scratch = [Float](repeating: 0, count: info.type.dtype == nil ? width : 0)
        for row in 0..<rows {
            let stored = UnsafeRawBufferPointer(rebasing: data[source(row) * rowByteCount..<(source(row) + 1) * rowByteCount])
            let target = UnsafeMutableRawBufferPointer(
                rebasing: result.mutableHostBytes[row * resultByteCount..<(row + 1) * resultByteCount])
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
