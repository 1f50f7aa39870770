package import Foundation
package import NibbleCore

/// The name, dtype and shape of a tensor to be written, before its elements exist.
package struct TensorSpecification: Sendable, Hashable {
    package let name: String
    package let dtype: DType
    package let shape: Shape

    package init(name: String, dtype: DType, shape: Shape) {
        self.name = name
        self.dtype = dtype
        self.shape = shape
    }

    package init(name: String, tensor: Tensor) { self.init(name: name, dtype: tensor.dtype, shape: tensor.shape) }

    package var byteCount: Int { shape.count * dtype.byteCount }
}

/// Writes safetensors files as `save_pretrained` lays them out.
///
/// Tensors are written one at a time, so that they may be computed during the write and none is held twice. A file gets its
/// final name only when it is complete.
package struct SafetensorsWriter: Sendable {
    package enum Order: Sendable {
        /// As listed.
        case given
        /// As the reference library: by dtype, wide ones first (which keeps every tensor aligned), then by name.
        case reference
    }

    /// Text in the header. The reference library expects `format`.
    package var metadata: [String: String]
    package var order: Order

    package init(metadata: [String: String] = ["format": "pt"], order: Order = .given) {
        self.metadata = metadata
        self.order = order
    }

    /// Writes tensors that are in memory.
    /// - Throws: ``CheckpointError``; then an existing file is unchanged and no temporary file remains.
    package func write(_ tensors: [(name: String, tensor: Tensor)], to file: URL) throws {
        let held = Dictionary(tensors.map { (ByteText($0.name), $0.tensor) }, uniquingKeysWith: { first, _ in first })
        try write(tensors.map { TensorSpecification(name: $0.name, tensor: $0.tensor) }, to: file) { specification in
            guard let tensor = held[specification.name] else {
                throw CheckpointError.noSuchTensor(name: specification.name, files: [file.path])
            }
            return tensor
        }
    }

    /// Writes tensors that are computed during the write.
    /// - Parameter tensor: called once per specification, in the file's order; the result is on the CPU and fits the specification.
    /// - Throws: ``CheckpointError``, or what `tensor` throws.
    package func write(_ specifications: [TensorSpecification], to file: URL, tensor: (TensorSpecification) throws -> Tensor)
        throws
    {
        let output = try writeTemporary(specifications, to: file, tensor: tensor)
        try output.commit()
    }

    func writeTemporary(_ specifications: [TensorSpecification], to file: URL, tensor: (TensorSpecification) throws -> Tensor)
        throws -> AtomicFile
    {
        let specifications = ordered(specifications)
        let header = try header(of: specifications, file: file)
        let output = try AtomicFile(file)
        try header.withUnsafeBytes { try output.write($0) }
        for specification in specifications {
            let tensor = try tensor(specification)
            guard tensor.device == .cpu, tensor.dtype == specification.dtype, tensor.shape == specification.shape else {
                throw CheckpointError.malformed(
                    file: file.path, tensor: specification.name, expected: "\(specification.dtype)\(specification.shape) on cpu",
                    found: "\(tensor)")
            }
            try output.write(tensor.hostBytes)
        }
        try output.finish()
        return output
    }

    func ordered(_ specifications: [TensorSpecification]) -> [TensorSpecification] {
        guard order == .reference else { return specifications }
        return specifications.sorted { a, b in
            let (x, y) = (a.dtype.safetensorsRank, b.dtype.safetensorsRank)
            return x != y ? x > y : a.name.utf8.lexicographicallyPrecedes(b.name.utf8)
        }
    }

    /// Length and JSON, padded with spaces so that the data begin at a multiple of eight.
    private func header(of specifications: [TensorSpecification], file: URL) throws -> [UInt8] {
        var members = JSONObject()
        if !metadata.isEmpty {
            members["__metadata__"] = .object(JSONObject(metadata.sorted { $0.key < $1.key }.map { ($0.key, .string($0.value)) }))
        }
        var offset = 0
        for specification in specifications {
            let end = offset + specification.byteCount
            let entry: JSONValue = [
                "dtype": .string(specification.dtype.safetensorsWord),
                "shape": .array(specification.shape.dimensions.map(JSONValue.int)),
                "data_offsets": [.int(offset), .int(end)],
            ]
            guard specification.name != "__metadata__", members.insert(specification.name, entry) else {
                throw CheckpointError.malformed(
                    file: file.path, tensor: specification.name, expected: "each name once", found: "a second")
            }
            offset = end
        }
        var text = Array(JSONValue.object(members).encoded().utf8)
        text.append(contentsOf: repeatElement(UInt8(ascii: " "), count: (8 - text.count % 8) % 8))
        return withUnsafeBytes(of: UInt64(text.count).littleEndian) { Array($0) } + text
    }
}

extension DType {
    /// Place in the reference library's order of dtypes.
    fileprivate var safetensorsRank: Int {
        let ascending: [DType] = [
            .bool, .uint8, .int8, .float8E5M2, .float8E4M3, .int16, .uint16, .float16, .bfloat16, .int32, .uint32, .float32,
            .float64, .int64, .uint64,
        ]
        return ascending.firstIndex(of: self) ?? 0
    }
}
