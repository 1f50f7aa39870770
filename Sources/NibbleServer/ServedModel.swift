package import NibbleGeneration
package import NibbleTokenizers

/// The model that a server answers with.
package struct ServedModel: Sendable {
    package var tokenizer: Tokenizer
    /// generation_config.json.
    package var defaults: GenerationConfig
    /// Where each module lies, and its bytes, for the page; JSON.
    package var placement = "null"

    package init(tokenizer: Tokenizer, defaults: GenerationConfig) {
        self.tokenizer = tokenizer
        self.defaults = defaults
    }

    /// Tokens that end an answer.
    var endTokens: [Int32] { defaults.eosTokenId ?? tokenizer.specialTokens.eos.map { [$0.id] } ?? [] }
}
