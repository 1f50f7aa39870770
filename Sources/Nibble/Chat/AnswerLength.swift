package import NibbleGeneration
package import NibbleTokenizers

extension PretrainedModel {
    /// New tokens of an answer where nothing says how many positions the model has.
    package static let defaultAnswerTokens = 512

    /// The limit of an answer in a chat where neither the call nor the model's files give one: the model's positions, or what the
    /// tokenizer calls the model's maximum.
    ///
    /// - Parameter promptLength: tokens of the chat before the answer. A chat that fills all positions gets
    ///   ``defaultAnswerTokens``; whether the model can go on is for the model to say.
    package func answerLength(_ tokenizer: Tokenizer, promptLength: Int = 0) -> GenerationConfig {
        guard let positions = model.maximumPositions ?? tokenizer.modelMaxLength, promptLength < positions else {
            return GenerationConfig(maxNewTokens: PretrainedModel.defaultAnswerTokens)
        }
        return GenerationConfig(maxLength: positions)
    }
}
