public import Foundation
public import NibbleCore
public import NibbleDeviceMap
public import NibbleQuantization

/// Loads decoder-only models.
public enum AutoModelForCausalLM {
    /// - Parameter pretrained: a model folder.
    /// - Throws: see ``PretrainedModel/load(folder:_:)``; ``AutoModelError`` if the model is an encoder-decoder.
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
    /// See ``AutoModelForCausalLM/from(pretrained:deviceMap:maxMemory:quantization:dtype:configuration:)``.
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
    /// The arguments beat the same fields of `configuration`.
    public static func from(
        pretrained: String, deviceMap: DeviceMapRequest = .auto, maxMemory: [Device: MemoryLimit] = [:],
        quantization: BitsAndBytesConfig? = nil, dtype: DType? = nil, configuration: LoadConfiguration = .init()
    ) async throws -> PretrainedModel {
        var configuration = configuration
        if deviceMap != .auto { configuration.deviceMap = deviceMap }
        if !maxMemory.isEmpty { configuration.maxMemory = maxMemory }
        if let quantization { configuration.quantization = quantization }
        if let dtype { configuration.dtype = dtype }
        return try PretrainedModel.load(folder: try await PretrainedFiles.folder(for: pretrained), configuration)
    }
}

public enum AutoModelError: Error, Sendable, Equatable, CustomStringConvertible {
    case isEncoderDecoder(String)
    case isDecoderOnly(String)
    case noSuchFolder(String)

    public var description: String {
        switch self {
        case .isEncoderDecoder(let name): "\(name) is an encoder-decoder: load it with AutoModelForSeq2SeqLM"
        case .isDecoderOnly(let name): "\(name) is a decoder-only model: load it with AutoModelForCausalLM"
        case .noSuchFolder(let name): "\(name) is not a model folder"
        }
    }
}

/// From a name to the folder that holds the files.
public enum PretrainedFiles {
    /// - Throws: ``AutoModelError/noSuchFolder(_:)``
    public static func folder(for name: String) async throws -> URL {
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: name, isDirectory: &isFolder), isFolder.boolValue else {
            throw AutoModelError.noSuchFolder(name)
        }
        return URL(filePath: name)
    }
}
