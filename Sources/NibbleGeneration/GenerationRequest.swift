package import NibbleModels

/// One call of `generate`.
package struct GenerationRequest: Sendable {
    /// Token ids, one row an item. For an encoder-decoder the encoder's input. Empty: one row that begins with bos.
    ///
    /// Rows of different length are padded on the left where there is no mask.
    package var inputs: [[Int32]]
    /// 1 where ``inputs`` holds a token, 0 where it holds padding.
    package var attentionMask: [[Int32]]?
    /// Encoder-decoders: what the decoder begins with. The start token is put in front where it is missing.
    package var decoderInputs: [[Int32]]?
    /// What this call asks for. Goes before ``baseConfig``, the model's own configuration and the defaults.
    package var config: GenerationConfig
    /// A whole configuration handed to this call.
    package var baseConfig: GenerationConfig?
    /// Act behind the standard processors and before the warpers, in this order.
    package var processors: [any LogitsProcessor] = []
    package var stopping: [StoppingCriterion] = []
    package var prefixAllowedTokens: PrefixAllowedTokens?
    /// With guidance: the prompt to be guided away from, one row an item; without it the last prompt token is used.
    package var negativePrompt: [[Int32]]?
    /// A smaller model with the same vocabulary that drafts tokens for this one to check.
    package var assistant: (any GenerativeModel)?
    /// Asked often, also within a long prompt; what it throws ends the generation, and ``Generator`` throws it on.
    package var interruption: (@Sendable () throws -> Void)?
    /// Whether the log-probability of each chosen token is wanted.
    package var logProbabilities = false

    package init(
        inputs: [[Int32]] = [], attentionMask: [[Int32]]? = nil, decoderInputs: [[Int32]]? = nil,
        config: GenerationConfig = GenerationConfig()
    ) {
        self.inputs = inputs
        self.attentionMask = attentionMask
        self.decoderInputs = decoderInputs
        self.config = config
    }
}
