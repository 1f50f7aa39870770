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

    package init(_ checkpoint: any Checkpoint, _ format: StoredFormat, dtype: DType) {
        precondition([.float32, .float16, .bfloat16].contains(dtype), "weights cannot be dequantized to \(dtype)")
        let stored = StoredWeights(checkpoint, format)
        self.checkpoint = checkpoint
        self.stored = stored
        self.dtype = dtype
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
        let rows = weight.shape.count / max(weight.shape.last, 1)
        return try weight.rows(0..<rows, as: dtype, shape: weight.shape, checkpoint)
    }

    package func rows(_ name: String, _ range: Range<Int>) throws -> Tensor {
        guard let weight = stored.weights[name], weight.shape.rank == 3 else { return try tensor(name).rows(range) }
        let rows = weight.shape[1]
        return try weight.rows(
            range.lowerBound * rows..<range.upperBound * rows, as: dtype, shape: weight.shape.replacingFirst(range.count),
            checkpoint)
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

    /// - Parameter separatesAlternateRows: rows 0, 2, 4 … come first, then rows 1, 3, 5 ….
    /// - Throws: ``CheckpointError``
    package func mxfp4(_ name: String, matrix: Int, separatesAlternateRows: Bool) throws -> MXFP4Matrix {
        guard let weight = stored.weights[name] as? MXFP4BlocksWeight else {
            throw CheckpointError.noSuchTensor(name: name, files: files.map(\.path))
        }
        return try weight.matrix(matrix, separatesAlternateRows: separatesAlternateRows, checkpoint)
    }

    private func parts(_ name: String) -> [String] { stored.weights[name]?.tensors ?? [name] }
}
