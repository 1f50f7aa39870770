import NibbleGeneration
import NibbleTokenizers

/// The layers of a pipeline's configuration: the call's options, over those given at construction, over the task's in
/// config.json, over the model's generation_config.json, over the pipeline's defaults.
struct PipelineGeneration: Sendable {
    /// Given at construction.
    var construction: GenerationConfig
    var task = GenerationConfig()
    let model: GenerationConfig
    let defaults: GenerationConfig

    init(_ construction: GenerationConfig, model: PretrainedModel, tokenizer: Tokenizer, defaults: GenerationConfig) {
        self.construction = construction
        self.model = model.generationConfig
        var defaults = defaults
        defaults.padTokenId = tokenizer.specialTokens.pad?.id
        self.defaults = defaults
    }

    /// - Parameters:
    ///   - defaultLength: the length where nobody gives one, if it is another than that of ``defaults``.
    ///   - prefixLength: tokens of a prefix before the prompt, by which total lengths grow.
    func resolved(
        _ call: GenerationConfig, defaultLength: GenerationConfig = .init(), prefixLength: Int = 0
    ) -> GenerationConfig {
        var given = call.filling(from: construction).filling(from: task).filling(from: model)
        if given.maxLength == nil, given.maxNewTokens == nil { given = given.filling(from: defaultLength) }
        var added = defaults
        // A default number of new tokens would take precedence over a total length that was chosen.
        if given.maxLength != nil { added.maxNewTokens = nil }
        if (given.doSample ?? added.doSample) != true { added.temperature = nil }
        if prefixLength > 0 {
            if given.maxNewTokens == nil, let length = given.maxLength { given.maxLength = length + prefixLength }
            if given.minNewTokens == nil, let length = given.minLength { given.minLength = length + prefixLength }
        }
        return given.filling(from: added)
    }
}
