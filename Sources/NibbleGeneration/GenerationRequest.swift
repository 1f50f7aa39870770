package import NibbleModels

/// One call of `generate`.
public struct GenerationRequest: Sendable {
    /// Token ids, one row an item. For an encoder-decoder the encoder's input. Empty: one row that begins with bos.
    ///
    /// Rows of different length are padded on the left where there is no mask.
    public var inputs: [[Int32]]
    /// 1 where ``inputs`` holds a token, 0 where it holds padding.
    public var attentionMask: [[Int32]]?
    /// Encoder-decoders: what the decoder begins with. The start token is put in front where it is missing.
    public var decoderInputs: [[Int32]]?
    /// What this call asks for. Takes precedence over the model's own configuration and the defaults.
    public var config: GenerationConfig
    /// A whole configuration handed to this call.
    package var baseConfig: GenerationConfig?
    /// Act behind the standard processors and before the warpers, in this order.
    public var processors: [any LogitsProcessor] = []
    /// The caller's own conditions that end a row.
    public var stopping: [StoppingCriterion] = []
    /// Allows only these tokens at each step.
    public var prefixAllowedTokens: PrefixAllowedTokens?
    /// What each row's new text must look like. It ends only where it is complete, or at its greatest length. Needs the tokenizer.
    public var grammar: GenerationGrammar?
    /// With guidance: the prompt to be guided away from, one row an item; without it the last prompt token is used.
    public var negativePrompt: [[Int32]]?
    /// The adapters of each row of ``inputs``, by the names under which they were loaded; one entry is for all rows, and an empty
    /// one is the base model. `nil`: those that are active.
    public var adapters: [[String]]?
    /// ``adapters``, as the model knows them.
    package var adapterWeights: [AdapterWeights]?
    /// A smaller model with the same vocabulary that drafts tokens for this one to check.
    package var assistant: (any GenerativeModel)?
    /// One row of a decoder-only model: runs in the session of an earlier generation, and leaves it to a later one.
    package var keptSession: KeptSession?
    /// Asked often, also within a long prompt; what it throws ends the generation, and the call throws it.
    public var interruption: (@Sendable () throws -> Void)?
    /// Whether the log-probability of each chosen token is wanted.
    public var logProbabilities = false

    /// A request for these inputs; everything else can be set afterwards.
    public init(
        inputs: [[Int32]] = [], attentionMask: [[Int32]]? = nil, decoderInputs: [[Int32]]? = nil,
        config: GenerationConfig = GenerationConfig()
    ) {
        self.inputs = inputs
        self.attentionMask = attentionMask
        self.decoderInputs = decoderInputs
        self.config = config
    }
}
