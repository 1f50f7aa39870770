/// Text to tokens and back.
///
/// The stages are those of the tokenizers library: added tokens are split out, the rest is normalized, cut into words, encoded by
/// the model, and special tokens are put around it.
public final class Tokenizer: Sendable {
    /// The stages, as a file describes them.
    struct Components: Sendable {
        var model: TokenModel
        var addedTokens: [AddedToken] = []
        var normalizer: Normalizer?
        var preTokenizer: PreTokenizer?
        var postProcessor: PostProcessor?
        var decoder: Decoder?
    }

    let model: TokenModel
    let added: AddedVocabulary
    let normalizer: Normalizer?
    let preTokenizer: PreTokenizer?
    let postProcessor: PostProcessor?
    let decoder: Decoder?

    public let configuration: TokenizerConfiguration
    /// Beginning, end, padding and other special tokens, as far as the vocabulary has them.
    public let specialTokens: SpecialTokens
    /// Number of tokens, added ones included. A model's embedding may have more rows than that.
    public let vocabularySize: Int

    init(_ components: Components, configuration: TokenizerConfiguration) {
        model = components.model
        normalizer = components.normalizer
        preTokenizer = components.preTokenizer
        decoder = components.decoder
        let tokens = Self.addedTokens(components, configuration)
        added = AddedVocabulary(tokens, normalizer: components.normalizer)
        self.configuration = configuration
        let table = components.model.table
        let vocabulary = added
        specialTokens = SpecialTokens(configuration) { vocabulary.id(of: $0) ?? table.id(of: $0) }
        vocabularySize = table.count + added.tokens.count { table.id(of: $0.content) == nil }
        postProcessor = Self.postProcessor(components.postProcessor, configuration, specialTokens)
    }

    /// The file's own added tokens last, since they win; special tokens without an id at the end of the vocabulary.
    private static func addedTokens(_ components: Components, _ configuration: TokenizerConfiguration) -> [AddedToken] {
        let table = components.model.table
        var tokens = configuration.addedTokens + components.addedTokens
        for index in tokens.indices {
            if let id = table.id(of: tokens[index].content) { tokens[index].id = id }
        }
        var known = Set(tokens.map(\.content))
        var next = max(Int32(table.idLimit), (tokens.map(\.id).max() ?? -1) + 1)
        let names = TokenizerConfiguration.tokenNames
        let others = configuration.namedTokens.keys.filter { !names.contains($0) }.sorted()
        let named = (names + others).compactMap { configuration.namedTokens[$0] }
        for var token in named + configuration.additionalSpecialTokens where known.insert(token.content).inserted {
            if let id = table.id(of: token.content) {
                token.id = id
            } else {
                token.id = next
                next += 1
            }
            tokens.append(token)
        }
        return tokens
    }

    /// Llama and Gemma files may say by flags which tokens stand around a text; the flags then win over the template.
    private static func postProcessor(
        _ processor: PostProcessor?, _ configuration: TokenizerConfiguration, _ tokens: SpecialTokens
    ) -> PostProcessor? {
        let name = configuration.tokenizerClass ?? ""
        guard configuration.addsBeginToken != nil || configuration.addsEndToken != nil,
            name.contains("Llama") || name.contains("Gemma")
        else { return processor }
        let begin = configuration.addsBeginToken ?? true ? tokens.bos : nil
        let end = configuration.addsEndToken ?? false ? tokens.eos : nil
        return .template(.init(begin: begin, end: end))
    }
}

extension PostProcessor.Template {
    /// `begin A end` and `begin A end begin B end`.
    init(begin: SpecialTokens.Token?, end: SpecialTokens.Token?) {
        specials = [:]
        for token in [begin, end].compactMap(\.self) { specials[token.text] = [(token.id, token.text)] }
        func around(isSecond: Bool) -> [Part] {
            let typeID: Int32 = isSecond ? 1 : 0
            return [begin.map { Part.special(name: $0.text, typeID: typeID) }, .sequence(isSecond: isSecond, typeID: typeID),
                end.map { Part.special(name: $0.text, typeID: typeID) }].compactMap(\.self)
        }
        single = around(isSecond: false)
        pair = single + around(isSecond: true)
    }
}

// MARK: - Vocabulary

extension Tokenizer {
    /// The text of a token as the vocabulary writes it (`Ġthe`, `▁the`, `<0x0A>`); `nil` for an id without a token.
    public func token(for id: Int32) -> String? {
        if let token = added.token(of: id) { return token.content }
        return model.table.text(of: id).map { String(decoding: $0, as: UTF8.self) }
    }

    /// The id of a token text.
    public func id(for token: String) -> Int32? { added.id(of: token) ?? model.table.id(of: token) }

    /// Longest input the model was made for, in tokens.
    public var modelMaxLength: Int? { configuration.modelMaxLength }

    /// The side that padding goes to; right unless the configuration says otherwise.
    public var paddingSide: PaddingSide { configuration.paddingSide ?? .right }
}
