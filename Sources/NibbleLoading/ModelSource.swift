package import Foundation
package import NibbleCheckpoint
package import NibbleCore
package import NibbleModels
package import NibbleQuantization

/// What a folder, or a GGUF file, says of its model before a weight is read.
package struct ModelSource: Sendable {
    /// The folder, or the file.
    package let folder: URL
    /// Of a multimodal model: its text part's.
    package private(set) var config: ConfigReader
    package private(set) var architecture: ModelArchitecture
    /// The config's `quantization_config`, if it says that the checkpoint is quantized.
    package let storedQuantization: BitsAndBytesConfig?
    /// How the checkpoint's weights are quantized by another method. They are read as floats.
    package let storedFormat: StoredFormat?
    package private(set) var warnings: [String] = []

    /// Reads `config.json`, or the file's header, only.
    /// - Throws: ``LoadError``, `ModelError`, `QuantizationConfigError`, `JSONError`, `CheckpointError`.
    package init(folder: URL) throws {
        let isGGUF = ModelSource.isGGUF(folder)
        let file = isGGUF ? folder : folder.appending(path: "config.json")
        let object = isGGUF ? try GGUFNames.config(GGUFFile(folder)) : try ModelSource.config(file, in: folder)
        self.folder = folder
        architecture = try ModelRegistry.architecture(ConfigReader(object, file: file.path))
        config = ConfigReader(TextTower(object)?.config ?? object, file: file.path)
        var unknown = [String]()
        let quantization = try config.object("quantization_config")
        storedFormat = try ModelSource.storedFormat(quantization?.values, file: file.path, folder: isGGUF ? nil : folder)
        storedQuantization =
            storedFormat != nil
            ? nil : try quantization.flatMap { try BitsAndBytesConfig.stored(in: $0.values) { unknown.append($0) } }
        try requireReadableLayout()
        warnings =
            architecture.warnings + unknown.map { "\(file.path): the quantization option \($0) is not known and is ignored" }
    }

    /// - Parameter folder: where ModelOpt may have written a file of its own.
    private static func storedFormat(_ quantization: JSONObject?, file: String, folder: URL?) throws -> StoredFormat? {
        if let quantization { return try StoredFormat(quantization, file: file) }
        guard let url = folder?.appending(path: "hf_quant_config.json"), FileManager.default.fileExists(atPath: url.path),
            let object = try JSONValue(contentsOf: url).object
        else { return nil }
        return try StoredFormat(modelOpt: object, file: url.path)
    }

    /// Some methods store every layer as [N, K], also where the family's checkpoints hold [K, N].
    private func requireReadableLayout() throws {
        guard let storedFormat, storedFormat.mayTranspose else { return }
        let transposed = architecture.tree.modules.first { if case .transposedLinear = $0.node.kind { true } else { false } }
        guard let transposed else { return }
        throw LoadError.malformedQuantization(
            tensor: transposed.path, file: folder.path, expected: "a family whose layers are stored as [N, K]",
            found: "layers stored as [K, N], quantized by \(storedFormat.name)")
    }

    /// The same files, described by another config.
    func replacingConfig(_ values: JSONObject) throws -> ModelSource {
        var source = self
        source.config = ConfigReader(values, file: config.file)
        source.architecture = try ModelRegistry.architecture(source.config).naming(architecture.keys)
        return source
    }

    /// Whether a name is that of a file that holds a whole model.
    package static func isGGUF(_ url: URL) -> Bool { GGUFFile.isGGUF(url) }

    /// Where a folder written from a GGUF file keeps the tokenizer: a GGUF file without tensors.
    package static let vocabularyFile = "tokenizer.gguf"

    /// - Throws: ``LoadError`` for a folder without config.json.
    package static func requireConfig(in folder: URL) throws {
        guard !FileManager.default.fileExists(atPath: folder.appending(path: "config.json").path) else { return }
        let adapter = folder.appending(path: "adapter_config.json")
        guard FileManager.default.fileExists(atPath: adapter.path) else { throw LoadError.noConfig(folder: folder.path) }
        let base = try? JSONValue(contentsOf: adapter)["base_model_name_or_path"]?.string
        throw LoadError.adapterWithoutBase(folder: folder.path, base: base)
    }

    private static func config(_ file: URL, in folder: URL) throws -> JSONObject {
        try requireConfig(in: folder)
        guard let object = try JSONValue(contentsOf: file).object else {
            throw LoadError.unreadable(file: file.path, reason: "it does not hold a JSON object")
        }
        return object
    }

    /// Opens the weights.
    /// - Parameters:
    ///   - variant: of a folder's files.
    ///   - dtype: what the model is to be loaded in, if that is known. A GGUF file's blocks, and the weights of a
    ///     ``StoredFormat``, are dequantized to it.
    /// - Throws: `CheckpointError`
    package func checkpoint(variant: String?, dtype: DType?) throws -> any Checkpoint {
        guard ModelSource.isGGUF(folder) else {
            let files = try CheckpointFiles.open(
                folder: folder, variant: variant, named: config.optionalString("transformers_weights"))
            guard let storedFormat else { return files }
            let target = try dtype ?? configDType() ?? files.firstFloatingPointDType ?? .bfloat16
            return DequantizedCheckpoint(files, storedFormat, dtype: try ModelLoader.checked(target))
        }
        return try GGUFCheckpoint(folder, dequantizedTo: ModelLoader.checked(dtype ?? configDType() ?? .float32))
    }

    /// The dtype that `config.json` names.
    package func configDType() throws -> DType? {
        guard let word = try config.optionalString("dtype", "torch_dtype") else { return nil }
        guard let dtype = DType(name: word) else { throw LoadError.unknownDType(word) }
        return dtype
    }
}
