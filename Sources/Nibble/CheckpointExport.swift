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
        try write(folder, configuration) {
            try $0.writeQuantized($1, to: destination, maximumShardBytes: maximumShardBytes)
        }
    }

    /// Writes the quantized model in `folder` with its weights in floating point, in the dtype that `configuration` or the
    /// model's config names. Warnings go to ``LoadConfiguration/notice``.
    /// - Returns: the names of the modules that were quantized.
    /// - Throws: as loading does; `LoadError.notQuantized`, `FileError`, `CheckpointError`.
    @discardableResult
    public static func dequantizedModel(
        _ folder: URL, to destination: URL, maximumShardBytes: Int = 5_000_000_000, _ configuration: LoadConfiguration
    ) throws -> [String] {
        try write(folder, configuration) {
            try $0.writeDequantized($1, to: destination, maximumShardBytes: maximumShardBytes)
        }
    }

    /// Writes the model in `folder` with adapters merged into it, one after the other: as an ordinary checkpoint, or quantized as
    /// `configuration` says. Warnings go to ``LoadConfiguration/notice``.
    /// - Returns: the names of the quantized modules.
    /// - Throws: as loading does; ``LoadError/unmergeable(_:reason:remedy:)``, `FileError`, `CheckpointError`.
    @discardableResult
    public static func mergedModel(
        _ folder: URL, adapters: [URL], to destination: URL, maximumShardBytes: Int = 5_000_000_000,
        _ configuration: LoadConfiguration
    ) throws -> [String] {
        try mergedModel(
            folder, adapters.map { AdapterReference(folder: $0) }, to: destination, maximumShardBytes: maximumShardBytes,
            configuration)
    }

    @discardableResult
    package static func mergedModel(
        _ folder: URL, _ adapters: [AdapterReference], to destination: URL, maximumShardBytes: Int,
        _ configuration: LoadConfiguration
    ) throws -> [String] {
        let files = try adapters.map { (file: try AdapterFile(folder: $0.folder), scale: $0.scale) }
        for warning in files.compactMap({ $0.file.baseWarning(folder) }) { configuration.notice?(warning) }
        return try write(folder, configuration) {
            try $0.writeMerged($1, files, to: destination, maximumShardBytes: maximumShardBytes)
        }
    }

    /// Opens a model on the CPU, lets `export` write it, and passes its warnings on.
    private static func write(
        _ folder: URL, _ configuration: LoadConfiguration,
        _ export: (ModelLoader, any Checkpoint) throws -> WrittenCheckpoint
    ) throws -> [String] {
        let source = try ModelSource(folder: folder)
        let checkpoint = try source.checkpoint(variant: configuration.variant, dtype: configuration.dtype)
        let loader = ModelLoader(
            source, options: configuration.loader, backends: [CPUBackend(threads: configuration.threads)])
        let written = try export(loader, checkpoint)
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
