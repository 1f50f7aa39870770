public import Foundation
import NibbleCPU
import NibbleCheckpoint
import NibbleCore
import NibbleLoading

/// Writing quantized checkpoints.
public enum CheckpointExport {
    /// Writes the model in `folder` (or GGUF file), quantized as `configuration` says, as a pre-quantized checkpoint that transformers with
    /// bitsandbytes reads.
    /// - Returns: the names of the quantized modules.
    /// - Throws: as loading does; `CheckpointError`.
    @discardableResult
    public static func quantizedModel(
        _ folder: URL, to destination: URL, maximumShardBytes: Int = 5_000_000_000, _ configuration: LoadConfiguration
    ) throws -> [String] {
        let source = try ModelSource(folder: folder)
        let checkpoint = try source.checkpoint(variant: configuration.variant, dtype: configuration.dtype)
        let loader = ModelLoader(
            source, options: configuration.loadOptions, backends: [CPUBackend(threads: configuration.threads)])
        return try loader.writeQuantized(checkpoint, to: destination, maximumShardBytes: maximumShardBytes)
    }

    /// Quantizes every floating-point tensor of a safetensors file on its own (8 bits: every 2-D one).
    /// - Returns: the names of the quantized tensors.
    @discardableResult
    package static func quantizedTensors(
        _ file: URL, to destination: URL, _ configuration: LoadConfiguration
    ) throws -> [String] {
        guard let format = configuration.quantization?.format else { return [] }
        let quantizer = TensorFileQuantizer(format: format, cpu: CPUBackend(threads: configuration.threads))
        return try quantizer.write(try CheckpointFiles.open(file: file), to: destination)
    }
}
