/// A model with its tokenizer, ready for one task: text in, text out.
public protocol TextPipeline: Sendable {
    var model: PretrainedModel { get }
    var tokenizer: Tokenizer { get }
}

/// What ``pipeline(_:model:assistant:generation:deviceMap:maxMemory:quantization:dtype:configuration:)`` can be asked for.
public struct PipelineTask<Pipeline: TextPipeline>: Sendable {
    /// As in transformers: `text-generation`, `translation_en_to_de` …
    public let name: String
    let make: @Sendable (PretrainedModel, Tokenizer, PretrainedModel?, GenerationConfig) throws -> Pipeline
}

extension PipelineTask where Pipeline == TextGenerationPipeline {
    /// Continues texts and answers chats with a decoder-only model.
    public static var textGeneration: PipelineTask {
        PipelineTask(name: "text-generation") { model, tokenizer, assistant, generation in
            try TextGenerationPipeline(model: model, tokenizer: tokenizer, assistant: assistant, generation: generation)
        }
    }
}

extension PipelineTask where Pipeline == Text2TextGenerationPipeline {
    /// Answers texts with an encoder-decoder.
    public static var text2textGeneration: PipelineTask { named("text2text-generation") }
    /// Summarizes texts with an encoder-decoder.
    public static var summarization: PipelineTask { named("summarization") }
    /// For models that need no language named, or name it in the text itself; of others a call names the languages in its options.
    public static var translation: PipelineTask { named("translation") }

    /// - Parameters: the languages as the model's config names them, such as `en` and `de`, or its tokenizer: `eng_Latn` and `kor_Hang`.
    public static func translation(from source: String, to target: String) -> PipelineTask {
        named("translation_\(source)_to_\(target)", source, target)
    }

    private static func named(_ name: String, _ source: String? = nil, _ target: String? = nil) -> PipelineTask {
        PipelineTask(name: name) { model, tokenizer, assistant, generation in
            try Text2TextGenerationPipeline(
                model: model, tokenizer: tokenizer, task: name, assistant: assistant, generation: generation, srcLang: source,
                tgtLang: target)
        }
    }
}

/// Loads a model and its tokenizer for a task.
///
/// ```swift
/// let generate = try await pipeline(.textGeneration, model: "HuggingFaceTB/SmolLM2-135M-Instruct")
/// print(try await generate("The capital of France is")[0].generatedText)
/// ```
/// - Parameters:
///   - task: what the pipeline does.
///   - model: a model folder, a GGUF file, or the name of a model on the Hub.
///   - assistant: likewise a smaller model of the same vocabulary that drafts tokens.
///   - generation: options for every call; those of the call take precedence.
///   - deviceMap: where layers go. This argument and the next ones take precedence over the same fields of `configuration`.
///   - maxMemory: the most that Nibble takes of each device. Devices that are not named are not used.
///   - quantization: how linear layers are quantized. `nil`: as `configuration` or the checkpoint says.
///   - dtype: the dtype of what is not quantized. `nil`: as `configuration`, the config or the checkpoint says.
///   - configuration: everything else that can be said about a load.
/// - Throws: as loading does; ``AutoModelError`` if the model is of the wrong kind for the task.
public func pipeline<Pipeline>(
    _ task: PipelineTask<Pipeline>, model: String, assistant: String? = nil, generation: GenerationConfig = .init(),
    deviceMap: DeviceMapRequest = .auto, maxMemory: [Device: MemoryLimit] = [:], quantization: BitsAndBytesConfig? = nil,
    dtype: DType? = nil, configuration: LoadConfiguration = .init()
) async throws -> Pipeline {
    let tokenizer = try await AutoTokenizer.from(pretrained: model, configuration: configuration)
    let loaded = try await AutoModel.from(
        pretrained: model, deviceMap: deviceMap, maxMemory: maxMemory, quantization: quantization, dtype: dtype,
        configuration: configuration)
    var draft: PretrainedModel?
    if let assistant {
        var drafting = LoadConfiguration()
        drafting.hub = configuration.hub
        draft = try await AutoModel.from(pretrained: assistant, dtype: dtype, configuration: drafting)
    }
    return try task.make(loaded, tokenizer, draft, generation)
}

/// Why a pipeline cannot do what a call asks for.
public enum PipelineError: Error, Sendable, Equatable, CustomStringConvertible {
    /// `hole` leaves no room for a prompt.
    case noRoomForPrompt(newTokens: Int, modelMaxLength: Int)
    /// `hole` without a limit from which the number of new tokens follows.
    case unknownNewTokens(promptLength: Int, maxLength: Int?)
    /// The tokenizer states no maximum length to cut prompts to.
    case noModelMaxLength
    /// A chat without messages.
    case emptyChat
    /// The stop sequence has no token.
    case emptyStopSequence
    /// A translation by a model of many languages without ``Text2TextGenerationPipeline/Options/tgtLang``.
    case noTargetLanguage
    /// A batch size below 1.
    case batchSize(Int)

    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .noRoomForPrompt(let newTokens, let length):
            "\(newTokens) new tokens leave no room for a prompt in the \(length) tokens the model was made for: lower max_new_tokens"
        case .unknownNewTokens(let prompt, let length):
            "cannot tell how many tokens will be new: the prompt has \(prompt) tokens and max_length is \(length.map(String.init) ?? "unset")"
        case .noModelMaxLength: "the tokenizer states no model_max_length, so that long prompts cannot be cut to it"
        case .emptyChat: "a chat needs at least one message"
        case .emptyStopSequence: "the stop sequence is empty"
        case .noTargetLanguage:
            "this model translates between many languages: name them with srcLang and tgtLang, or .translation(from:to:)"
        case .batchSize(let size): "a batch holds at least 1 prompt, found \(size)"
        }
    }
}

/// The range of each batch.
func batches(_ count: Int, of size: Int) throws -> [Range<Int>] {
    guard size >= 1 else { throw PipelineError.batchSize(size) }
    return stride(from: 0, to: count, by: size).map { $0..<($0 + min(size, count - $0)) }
}
