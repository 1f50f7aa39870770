package import Foundation
package import NibbleCheckpoint
package import NibbleCore
import NibbleQuantization

/// Quantizes a bare safetensors file: no model, every floating-point tensor on its own.
package struct TensorFileQuantizer {
    package let format: WeightFormat
    /// The dtype that 4-bit codes are labelled with.
    package let storage: DType
    private let cpu: any Backend

    package init(format: WeightFormat, storage: DType = .uint8, cpu: any Backend) {
        self.format = format
        self.storage = storage
        self.cpu = cpu
    }

    /// Quantizes every floating-point tensor, flattened, to 4 bits, or every two-dimensional one to 8 bits. The others are
    /// copied.
    /// - Returns: names of the tensors that were quantized.
    /// - Throws: ``LoadError/nonFinite(tensor:file:index:)``, ``LoadError/alreadyQuantized(_:stored:wanted:)``,
    ///   `CheckpointError`; then nothing is left behind.
    package func write(_ checkpoint: any Checkpoint, to file: URL) throws -> [String] {
        if let state = checkpoint.names.first(where: { $0.containsBytes(".\(QuantizedNames.quantStatePrefix)") }) {
            throw LoadError.alreadyQuantized(
                checkpoint.descriptor(state)?.file.path ?? file.path, stored: state, wanted: format.name)
        }
        var quantized = [String]()
        let tensors = try checkpoint.names.flatMap { name in
            let tensor = try checkpoint.tensor(name)
            guard let entries = try quantize(tensor, name, checkpoint) else { return [(name: name, tensor: tensor)] }
            quantized.append(name)
            return entries
        }
        try SafetensorsWriter(order: .reference).write(tensors, to: file)
        return quantized
    }

    private func quantize(_ tensor: Tensor, _ name: String, _ checkpoint: any Checkpoint) throws -> [(
        name: String, tensor: Tensor
    )]? {
        guard [.float32, .float16, .bfloat16].contains(tensor.dtype), tensor.count > 0 else { return nil }
        do {
            switch format {
            case .fourBit:
                // Blocks ignore rows, so the flat tensor is one row.
                let weight = try cpu.quantize(tensor.viewed(as: [1, tensor.count]), to: format)
                guard case .fourBit(let codes) = weight else { return nil }
                return try QuantizedTensors.fourBit(codes, name: name, storage: storage, shape: tensor.shape)
            case .int8:
                guard tensor.shape.rank == 2, case .int8(let weight) = try cpu.quantize(tensor, to: format) else { return nil }
                return QuantizedTensors.int8(weight, name: name)
            case .dense:
                return nil
            }
        } catch BackendError.nonFiniteWeight(let index) {
            throw LoadError.nonFinite(tensor: name, file: checkpoint.descriptor(name)?.file.path ?? "", index: index)
        }
    }
}
