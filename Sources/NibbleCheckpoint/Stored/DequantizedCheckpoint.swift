package import Foundation
package import NibbleCore

/// A checkpoint whose weights are in a ``StoredFormat``, as a checkpoint of floats.
///
/// Each quantized weight has the name, the shape and the values of the floats it stands for; all other tensors are as they are.
/// Values are computed when a tensor is read.
package struct DequantizedCheckpoint: Checkpoint {
    package let names: [String]
    package let unreadableNames: [String]
    /// What quantized weights become: float32, float16 or bfloat16.
    package let dtype: DType
    private let checkpoint: any Checkpoint
    private let stored: StoredWeights
    private let kernels: StoredKernels

    package init(
        _ checkpoint: any Checkpoint, _ format: StoredFormat, dtype: DType, kernels: StoredKernels = .standard
    ) {
        precondition([.float32, .float16, .bfloat16].contains(dtype), "weights cannot be dequantized to \(dtype)")
        let stored = StoredWeights(checkpoint, format)
        self.checkpoint = checkpoint
        self.stored = stored
        self.dtype = dtype
        self.kernels = kernels
        let plain = checkpoint.names.filter { !stored.hidden.contains($0) && stored.weights[$0] == nil }
        names = (plain + stored.weights.keys.map(\.text)).sorted(by: NaturalOrder.precedes)
        let unreadable = checkpoint.unreadableNames.filter { !stored.hidden.contains($0) }
        unreadableNames = (unreadable + stored.failures.keys.map(\.text)).sorted(by: NaturalOrder.precedes)
    }

    package var files: [URL] { checkpoint.files }
    package var metadata: [String: String] { checkpoint.metadata }
    package var firstFloatingPointDType: DType? { checkpoint.firstFloatingPointDType }

    /// Whether the checkpoint holds any quantized weight.
    package var holdsQuantizedWeights: Bool { !stored.weights.isEmpty }

    /// Names of the weights that are stored quantized.
    package var quantizedNames: [String] { names.filter { stored.weights[$0] != nil } }

    package func descriptor(_ name: String) -> TensorDescriptor? {
        guard let weight = stored.weights[name] else {
            return stored.hidden.contains(name) ? nil : checkpoint.descriptor(name)
        }
        guard let codes = checkpoint.descriptor(weight.tensors[0]) else { return nil }
        return TensorDescriptor(
            dtype: dtype, shape: weight.shape, file: codes.file, byteOffset: codes.byteOffset,
            byteCount: weight.tensors.reduce(0) { $0 + (checkpoint.descriptor($1)?.byteCount ?? 0) }, isContiguous: false)
    }

    package func tensor(_ name: String) throws -> Tensor {
        guard let weight = stored.weights[name] else {
            if let failure = stored.failures[name] { throw failure }
            return try checkpoint.tensor(name)
        }
        return try tensor(weight, matrices: 0..<(weight.shape.rank == 3 ? weight.shape[0] : 1), weight.shape)
    }

    package func rows(_ name: String, _ range: Range<Int>) throws -> Tensor {
        guard let weight = stored.weights[name], weight.shape.rank == 3 else { return try tensor(name).rows(range) }
        return try tensor(weight, matrices: range, weight.shape.replacingFirst(range.count))
    }

    private func tensor(_ weight: any StoredWeight, matrices: Range<Int>, _ shape: Shape) throws -> Tensor {
        let decoder = try weight.decoder(checkpoint, kernels, matrices: matrices)
        return StoredRows(decoder: decoder, dtype: dtype, shape: [shape.count / max(shape.last, 1), shape.last]).tensor(shape)
    }

    package func weightRows(_ name: String, matrix: Int?) throws -> (any WeightRows)? {
        guard let weight = stored.weights[name], weight.shape.rank == (matrix == nil ? 2 : 3) else { return nil }
        let shape: Shape = [weight.shape[weight.shape.rank - 2], weight.shape.last]
        let decoder = try weight.decoder(checkpoint, kernels, matrices: (matrix ?? 0)..<(matrix ?? 0) + 1)
        return StoredRows(decoder: decoder, dtype: dtype, shape: shape)
    }

    package func prefetch(_ name: String) { parts(name).forEach(checkpoint.prefetch) }

    package func dropPages(_ name: String) { parts(name).forEach(checkpoint.dropPages) }

    // MARK: MXFP4 as it is

    /// Whether the tensor is a set of matrices in MXFP4 blocks.
    package func isMXFP4(_ name: String) -> Bool { stored.weights[name] is MXFP4BlocksWeight }

    /// A matrix [N, K] of a set in MXFP4: uint8 codes [N·K/2], the first of two in the high nibble, and exponents.
    package struct MXFP4Matrix {
        package let outFeatures: Int
        package let inFeatures: Int
        package let codes: Tensor
        /// uint8 [N·K/32]: scales are 2^(exponent − 127).
        package let exponents: Tensor
    }

    /// The rows [N, K] of one matrix of a set in MXFP4, whose parameter is [E, K, N].
    /// - Parameter separatesAlternateRows: rows 0, 2, 4 … come first, then rows 1, 3, 5 ….
    /// - Throws: ``CheckpointError``
    package func mxfp4Rows(_ name: String, matrix: Int, separatesAlternateRows: Bool) throws -> any WeightRows {
        let weight = try mxfp4Weight(name)
        return StoredRows(
            decoder: try weight.orientedRows(
                matrix, separatesAlternateRows: separatesAlternateRows, checkpoint, kernels), dtype: dtype,
            shape: [weight.shape[2], weight.shape[1]])
    }

    /// - Parameter separatesAlternateRows: rows 0, 2, 4 … come first, then rows 1, 3, 5 ….
    /// - Throws: ``CheckpointError``
    package func mxfp4(_ name: String, matrix: Int, separatesAlternateRows: Bool) throws -> MXFP4Matrix {
        try mxfp4Weight(name).matrix(matrix, separatesAlternateRows: separatesAlternateRows, checkpoint)
    }

    private func mxfp4Weight(_ name: String) throws -> MXFP4BlocksWeight {
        guard let weight = stored.weights[name] as? MXFP4BlocksWeight else {
            throw CheckpointError.noSuchTensor(name: name, files: files.map(\.path))
        }
        return weight
    }

    private func parts(_ name: String) -> [String] { stored.weights[name]?.tensors ?? [name] }
}
