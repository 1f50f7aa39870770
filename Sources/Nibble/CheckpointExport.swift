public import Foundation
import NibbleCPU
import NibbleCheckpoint
import NibbleCore
import NibbleLoading

/// Writing checkpoints.
public enum CheckpointExport {
    /// Writes the model in `folder` (or GGUF file), quantized as `configuration` says, as a pre-quantized checkpoint that
    /// transformers with bitsandbytes reads. Warnings go to ``LoadConfiguration/notice``.
    /// - Returns: the names of the quantized modules.
    /// - Throws: as loading does; `FileError`, `CheckpointError`.
    @discardableResult
    public static func quantizedModel(
        _ folder: URL, to destination: URL, maximumShardBytes: Int = 5_000_000_000, _ configuration: LoadConfiguration
    ) throws -> [String] {
        let source = try ModelSource(folder: folder)
        let checkpoint = try source.checkpoint(variant: configuration.variant, dtype: configuration.dtype)
        let loader = ModelLoader(
            source, options: configuration.loadOptions, backends: [CPUBackend(threads: configuration.threads)])
        let written = try loader.writeQuantized(checkpoint, to: destination, maximumShardBytes: maximumShardBytes)
        for warning in written.warnings { configuration.notice?(warning) }
        return written.quantizedModules
    }

    /// Writes the quantized model in `folder` with its weights in floating point, in the dtype that `configuration` or the
    /// model's config names. Warnings go to ``LoadConfiguration/notice``.
    /// - Returns: the names of the modules that were quantized.
    /// - Throws: as loading does; `LoadError.notQuantized`, `FileError`, `CheckpointError`.
    @discardableResult
    public static func dequantizedModel(
        _ folder: URL, to destination: URL, maximumShardBytes: Int = 5_000_000_000, _ configuration: LoadConfiguration
    ) throws -> [String] {
        let source = try ModelSource(folder: folder)
        let checkpoint = try source.checkpoint(variant: configuration.variant, dtype: configuration.dtype)
        let loader = ModelLoader(
            source, options: configuration.loadOptions, backends: [CPUBackend(threads: configuration.threads)])
        let written = try loader.writeDequantized(checkpoint, to: destination, maximumShardBytes: maximumShardBytes)
        for warning in written.warnings { configuration.notice?(warning) }
        return written.quantizedModules
    }

    /// Quantizes every floating-point tensor of a safetensors file on its own (8 bits: every 2-D one).
    /// - Returns: the names of the quantized tensors.
    /// - Throws: `LoadError`, `CheckpointError`.
    @discardableResult
    package static func quantizedTensors(
        _ file: URL, to destination: URL, _ configuration: LoadConfiguration
    ) throws -> [String] {
        guard let config = configuration.quantization else { return [] }
        let quantizer = TensorFileQuantizer(
            format: config.format, storage: config.quantStorage, cpu: CPUBackend(threads: configuration.threads))
        return try quantizer.write(try CheckpointFiles.open(file: file), to: destination)
    }
}
