package import NibbleCore
package import NibbleDeviceMap
package import NibbleQuantization

/// Loads decoder-only models.
package enum AutoModelForCausalLM {
    /// - Parameter pretrained: a model folder, a GGUF file, or the name of a model on the Hub (`owner/name`).
    /// - Throws: see ``PretrainedModel/load(folder:_:)`` and ``PretrainedFiles/folder(for:_:_:)``; ``AutoModelError`` if the model is an
    ///   encoder-decoder.
    package static func from(
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
package enum AutoModelForSeq2SeqLM {
    /// See ``AutoModelForCausalLM/from(pretrained:deviceMap:maxMemory:quantization:dtype:configuration:)``.
    package static func from(
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
package enum AutoModel {
    /// The arguments beat the same fields of `configuration`.
    package static func from(
        pretrained: String, deviceMap: DeviceMapRequest = .auto, maxMemory: [Device: MemoryLimit] = [:],
        quantization: BitsAndBytesConfig? = nil, dtype: DType? = nil, configuration: LoadConfiguration = .init()
    ) async throws -> PretrainedModel {
        var configuration = configuration
        if deviceMap != .auto { configuration.deviceMap = deviceMap }
        if !maxMemory.isEmpty { configuration.maxMemory = maxMemory }
        if let quantization { configuration.quantization = quantization }
        if let dtype { configuration.dtype = dtype }
        let folder = try await PretrainedFiles.folder(for: pretrained, .all, configuration)
        return try PretrainedModel.load(folder: folder, configuration)
    }
}

package enum AutoModelError: Error, Sendable, Equatable, CustomStringConvertible {
    case isEncoderDecoder(String)
    case isDecoderOnly(String)
    case noSuchFolder(String)

    package var description: String {
        switch self {
        case .isEncoderDecoder(let name): "\(name) is an encoder-decoder: load it with AutoModelForSeq2SeqLM"
        case .isDecoderOnly(let name): "\(name) is a decoder-only model: load it with AutoModelForCausalLM"
        case .noSuchFolder(let name):
            "\(name) is neither a folder, nor a GGUF file, nor the name of a model on the Hub (owner/name)"
        }
    }
}
