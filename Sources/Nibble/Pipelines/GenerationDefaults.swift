import NibbleGeneration
import NibbleTokenizers

/// What a pipeline generates with: the call's options over those given at construction, over the task's own in config.json,
/// over the model's generation_config.json, over the pipeline's defaults.
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

    /// - Parameter prefixLength: tokens of a prefix before the prompt, by which total lengths grow.
    func resolved(_ call: GenerationConfig, prefixLength: Int = 0) -> GenerationConfig {
        var given = call.filling(from: construction).filling(from: task).filling(from: model)
        var added = defaults
        // A default number of new tokens would beat a total length that somebody chose.
        if given.maxLength != nil { added.maxNewTokens = nil }
        if (given.doSample ?? added.doSample) != true { added.temperature = nil }
        if prefixLength > 0 {
            if given.maxNewTokens == nil, let length = given.maxLength { given.maxLength = length + prefixLength }
            if given.minNewTokens == nil, let length = given.minLength { given.minLength = length + prefixLength }
        }
        return given.filling(from: added)
    }
}
