import NibbleCore

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
        /// Whether beginning and end tokens stand around a text where there is no post-processor.
        var addsBegin = false
        var addsEnd = false
        /// Whether a code such as `>>kor<<` at the beginning of a text is a token of its own.
        var takesLanguageCode = false
    }

    let model: TokenModel
    let added: AddedVocabulary
    let normalizer: Normalizer?
    let preTokenizer: PreTokenizer?
    let postProcessor: PostProcessor?
    let decoder: Decoder?
    let takesLanguageCode: Bool
    /// Of translation models: the languages to choose from.
    let markedLanguages: Languages?
    /// What an answer's first token is to be.
    package let forcedBosTokenID: Int32?
    /// Whether the pre-tokenizer needs the alignment of the normalized text with the raw text.
    let tracksAlignment: Bool

    package let configuration: TokenizerConfiguration
    /// Beginning, end, padding and other special tokens, as far as the vocabulary has them.
    public let specialTokens: SpecialTokens
    /// Number of tokens, added ones included. A model's embedding may have more rows than that.
    public let vocabularySize: Int

    /// - Parameter normalizesAdded: added tokens that are found in normalized text are normalized first.
    init(_ components: Components, configuration: TokenizerConfiguration, normalizesAdded: Bool = true) {
        var components = components
        components.apply(configuration)
        model = components.model
        normalizer = components.normalizer
        preTokenizer = components.preTokenizer
        decoder = components.decoder
        let tokens = Self.addedTokens(components, configuration)
        added = AddedVocabulary(
            tokens, normalizer: normalizesAdded ? components.normalizer : nil,
            splitsSpecial: configuration.splitsSpecialTokens)
        tracksAlignment = (components.normalizer?.mayDelete ?? false) && (components.preTokenizer?.asksForStart ?? false)
        self.configuration = configuration
        let table = components.model.table
        let vocabulary = added
        specialTokens = SpecialTokens(configuration) { vocabulary.id(of: $0) ?? table.id(of: $0) }
        vocabularySize = table.count + added.tokens.count { table.id(of: $0.content) == nil }
        takesLanguageCode = components.takesLanguageCode
        markedLanguages = Languages(configuration, added: added.tokens, table: table, end: specialTokens.eos)
        forcedBosTokenID = nil
        let source = configuration.sourceLanguage ?? markedLanguages?.style.defaultSource
        if let languages = markedLanguages, let language = source.flatMap(languages.known) {
            postProcessor = languages.template(language)
        } else {
            postProcessor = Self.postProcessor(components, configuration, specialTokens)
        }
    }

    /// The same tokenizer with other tokens around texts.
    init(_ other: Tokenizer, postProcessor: PostProcessor?, forcedBosTokenID: Int32?) {
        model = other.model
        added = other.added
        normalizer = other.normalizer
        preTokenizer = other.preTokenizer
        decoder = other.decoder
        takesLanguageCode = other.takesLanguageCode
        markedLanguages = other.markedLanguages
        tracksAlignment = other.tracksAlignment
        configuration = other.configuration
        specialTokens = other.specialTokens
        vocabularySize = other.vocabularySize
        self.postProcessor = postProcessor
        self.forcedBosTokenID = forcedBosTokenID
    }

    /// The file's own added tokens, then those that only the configuration has, then special tokens without an id.
    private static func addedTokens(_ components: Components, _ configuration: TokenizerConfiguration) -> [AddedToken] {
        let table = components.model.table
        let own = Set(texts: components.addedTokens.map(\.content))
        var tokens = components.addedTokens + configuration.addedTokens.filter { !own.contains($0.content) }
        // The tokenizers library counts on from the vocabulary, whatever the file says. With holes in the vocabulary that would
        // give an id twice: then the file is believed.
        let isContiguous = table.count == table.idLimit
        var next = Int32(table.idLimit)
        var known: [ByteText: Int32] = [:]
        for index in tokens.indices {
            let content = tokens[index].content
            if let id = known[content] ?? table.id(of: content) {
                tokens[index].id = id
            } else if isContiguous {
                tokens[index].id = next
            }
            next = max(next, tokens[index].id + 1)
            known[content] = tokens[index].id
        }
        let names = TokenizerConfiguration.tokenNames
        let others = configuration.namedTokens.keys.filter { !names.contains($0) }.sorted()
        let named = (names + others).compactMap { configuration.namedTokens[$0] }
        for var token in named + configuration.additionalSpecialTokens where known[token.content] == nil {
            if let id = table.id(of: token.content) {
                token.id = id
            } else {
                token.id = next
                next += 1
            }
            known[token.content] = token.id
            tokens.append(token)
        }
        return tokens
    }

    /// Llama and Gemma files may say by flags which tokens stand around a text; the flags then win over the template.
    private static func postProcessor(
        _ components: Components, _ configuration: TokenizerConfiguration, _ tokens: SpecialTokens
    ) -> PostProcessor? {
        let name = configuration.tokenizerClass ?? ""
        let hasFlags = configuration.addsBeginToken != nil || configuration.addsEndToken != nil
        if hasFlags, name.contains("Llama") || name.contains("Gemma") {
            return .template(
                .init(
                    begin: configuration.addsBeginToken ?? true ? tokens.bos : nil,
                    end: configuration.addsEndToken ?? false ? tokens.eos : nil))
        }
        if let processor = components.postProcessor { return processor }
        guard components.addsBegin || components.addsEnd else { return nil }
        return .template(
            .init(begin: components.addsBegin ? tokens.bos : nil, end: components.addsEnd ? tokens.eos : nil))
    }
}

extension PostProcessor.Template {
    /// `begin A end` and `begin A end begin B end`.
    init(begin: SpecialTokens.Token?, end: SpecialTokens.Token?) {
        specials = [:]
        for token in [begin, end].compactMap(\.self) { specials[token.text] = [(token.id, token.text)] }
        func around(isSecond: Bool) -> [Element] {
            let typeID: Int32 = isSecond ? 1 : 0
            return [
                begin.map { Element.special(name: $0.text, typeID: typeID) }, .sequence(isSecond: isSecond, typeID: typeID),
                end.map { Element.special(name: $0.text, typeID: typeID) },
            ].compactMap(\.self)
        }
        single = around(isSecond: false)
        pair = single + around(isSecond: true)
    }
}

// MARK: - Vocabulary

extension Tokenizer {
    /// The text of a token as the vocabulary writes it (`Ġthe`, `▁the`, `<0x0A>`); `nil` for an id without a token.
    public func token(for id: Int32) -> String? {
        if let text = added.text(of: id) { return String(decoding: text, as: UTF8.self) }
        return model.table.text(of: id).map { String(decoding: $0, as: UTF8.self) }
    }

    /// The id of a token text.
    public func id(for token: String) -> Int32? { added.id(of: token) ?? model.table.id(of: token) }

    /// Longest input the model was made for, in tokens.
    public var modelMaxLength: Int? { configuration.modelMaxLength }

    /// The side that padding goes to; right unless the configuration says otherwise.
    public var paddingSide: PaddingSide { configuration.paddingSide ?? .right }
}
