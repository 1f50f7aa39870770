public import Foundation
import NibbleCore

/// Loads decoder-only models.
public enum AutoModelForCausalLM {
    /// Loads a decoder-only model.
    ///
    /// - Parameters:
    ///   - pretrained: a model folder, a GGUF file, or the name of a model on the Hub (`owner/name`).
    ///   - deviceMap: where layers go. This argument and the next ones take precedence over the same fields of `configuration`.
    ///   - maxMemory: the most that Nibble takes of each device. Devices that are not named are not used.
    ///   - quantization: how linear layers are quantized. `nil`: as `configuration` or the checkpoint says.
    ///   - dtype: the dtype of what is not quantized. `nil`: as `configuration`, the config or the checkpoint says.
    ///   - configuration: everything else that can be said about a load.
    /// - Throws: ``AutoModelError/isEncoderDecoder(_:)`` for a model of the other kind, ``HubError``, and what
    ///   ``PretrainedModel/load(folder:_:)`` throws.
    public static func from(
        pretrained: String, deviceMap: DeviceMapRequest = .auto, maxMemory: [Device: MemoryLimit] = [:],
        quantization: BitsAndBytesConfig? = nil, dtype: DType? = nil, configuration: LoadConfiguration = .init()
    ) async throws -> PretrainedModel {
        let model = try await AutoModel.from(
            pretrained: pretrained, deviceMap: deviceMap, maxMemory: maxMemory, quantization: quantization, dtype: dtype,
            configuration: configuration)
        guard !model.isEncoderDecoder else { throw AutoModelError.isEncoderDecoder(pretrained) }
        return model
    }
}

/// Loads encoder-decoder models.
public enum AutoModelForSeq2SeqLM {
    /// Loads an encoder-decoder.
    ///
    /// - Parameters:
    ///   - pretrained: a model folder, a GGUF file, or the name of a model on the Hub (`owner/name`).
    ///   - deviceMap: where layers go. This argument and the next ones take precedence over the same fields of `configuration`.
    ///   - maxMemory: the most that Nibble takes of each device. Devices that are not named are not used.
    ///   - quantization: how linear layers are quantized. `nil`: as `configuration` or the checkpoint says.
    ///   - dtype: the dtype of what is not quantized. `nil`: as `configuration`, the config or the checkpoint says.
    ///   - configuration: everything else that can be said about a load.
    /// - Throws: ``AutoModelError/isDecoderOnly(_:)`` for a model of the other kind, ``HubError``, and what
    ///   ``PretrainedModel/load(folder:_:)`` throws.
    public static func from(
        pretrained: String, deviceMap: DeviceMapRequest = .auto, maxMemory: [Device: MemoryLimit] = [:],
        quantization: BitsAndBytesConfig? = nil, dtype: DType? = nil, configuration: LoadConfiguration = .init()
    ) async throws -> PretrainedModel {
        let model = try await AutoModel.from(
            pretrained: pretrained, deviceMap: deviceMap, maxMemory: maxMemory, quantization: quantization, dtype: dtype,
            configuration: configuration)
        guard model.isEncoderDecoder else { throw AutoModelError.isDecoderOnly(pretrained) }
        return model
    }
}

/// Loads a model of any kind.
public enum AutoModel {
    /// Loads a model.
    ///
    /// - Parameters:
    ///   - pretrained: a model folder, a GGUF file, or the name of a model on the Hub (`owner/name`).
    ///   - deviceMap: where layers go. This argument and the next ones take precedence over the same fields of `configuration`.
    ///   - maxMemory: the most that Nibble takes of each device. Devices that are not named are not used.
    ///   - quantization: how linear layers are quantized. `nil`: as `configuration` or the checkpoint says.
    ///   - dtype: the dtype of what is not quantized. `nil`: as `configuration`, the config or the checkpoint says.
    ///   - configuration: everything else that can be said about a load.
    /// - Throws: ``AutoModelError``, ``HubError``, and what ``PretrainedModel/load(folder:_:)`` throws.
    public static func from(
        pretrained: String, deviceMap: DeviceMapRequest = .auto, maxMemory: [Device: MemoryLimit] = [:],
        quantization: BitsAndBytesConfig? = nil, dtype: DType? = nil, configuration: LoadConfiguration = .init()
    ) async throws -> PretrainedModel {
        var configuration = configuration
        if deviceMap != .auto { configuration.deviceMap = deviceMap }
        if !maxMemory.isEmpty { configuration.maxMemory = maxMemory }
        if let quantization { configuration.quantization = quantization }
        if let dtype { configuration.dtype = dtype }
        return try PretrainedModel.load(folder: try await download(pretrained, configuration), configuration)
    }

    /// Makes a model's files available without loading it: weights, configuration and tokenizer.
    ///
    /// - Parameters:
    ///   - pretrained: a model folder or a GGUF file, which is returned as it is, or the name of a model on the Hub, whose files are
    ///     downloaded into the cache unless they are there.
    ///   - configuration: revision, variant, the Hub's settings and progress are read.
    /// - Returns: the folder (or GGUF file) that ``PretrainedModel/load(folder:_:)`` and ``LoadPreview/init(folder:_:)`` take.
    /// - Throws: ``AutoModelError/noSuchFolder(_:)``, ``HubError``, ``CheckpointError``.
    public static func download(_ pretrained: String, _ configuration: LoadConfiguration = .init()) async throws -> URL {
        try await PretrainedFiles.folder(for: pretrained, .all, configuration)
    }
}

/// Why a name does not lead to a model of the requested kind.
public enum AutoModelError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The model is an encoder-decoder.
    case isEncoderDecoder(String)
    /// The model has no encoder.
    case isDecoderOnly(String)
    /// The name is neither a folder, nor a GGUF file, nor a possible name on the Hub.
    case noSuchFolder(String)
    /// The repository or folder holds several models as GGUF files, and not exactly one is meant.
    case ambiguousGGUF(String, wanted: String?, files: [String])
    /// The name is that of a file, but not of a GGUF file.
    case noModelFile(String)

    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .isEncoderDecoder(let name): "\(name) is an encoder-decoder: load it with AutoModelForSeq2SeqLM"
        case .isDecoderOnly(let name): "\(name) is a decoder-only model: load it with AutoModelForCausalLM"
        case .noSuchFolder(""):
            "no model was named: give a folder, a GGUF file, or the name of a model on the Hub (owner/name)"
        case .noSuchFolder(let name) where name.contains("://"):
            "\(name.printablePath) is an address: give the name of the model on the Hub (owner/name)"
        case .noSuchFolder(let name):
            "\(name.printablePath) is neither a folder, nor a GGUF file, nor the name of a model on the Hub (owner/name): check the "
                + "spelling; nibble models lists the models in the cache"
        case .ambiguousGGUF(let place, let wanted, let files):
            (wanted.map {
                "\(place) has \(files.isEmpty ? "no GGUF file" : "not exactly one GGUF file"), but '\($0)' was asked for"
            }
                ?? "\(place) holds several GGUF files")
                + (files.isEmpty
                    ? ": leave out --gguf-file"
                    : "; choose one with --gguf-file, or owner/name:Q4_K_M: \(files.prefix(30).joined(separator: ", "))")
        case .noModelFile(let name):
            "\(name.printablePath) is a file, but not a GGUF file. A model is a GGUF file, or a folder with config.json, weights and "
                + "tokenizer files"
        }
    }
}
