package import NibbleCore

/// What `tokenizer_config.json` and its companions say beside the tokenizer proper.
package struct TokenizerConfiguration: Sendable {
    /// The name of the Python class, such as `LlamaTokenizer`.
    package var tokenizerClass: String?
    /// Longest input the model was made for, in tokens; `nil` where the file gives none or a number that means none.
    package var modelMaxLength: Int?
    package var paddingSide: PaddingSide?
    package var truncationSide: PaddingSide?
    /// Special tokens by their name in the file (`bos_token`, `pad_token`, …).
    package var namedTokens: [String: AddedToken] = [:]
    package var additionalSpecialTokens: [AddedToken] = []
    /// Tokens with the ids they must have. Ids of `namedTokens` and `additionalSpecialTokens` are not set.
    package var addedTokens: [AddedToken] = []
    package var addsBeginToken: Bool?
    package var addsEndToken: Bool?
    package var addsPrefixSpace: Bool?
    /// Special tokens in a text are ordinary text: a prompt cannot write them.
    package var splitsSpecialTokens = false
    /// Llama's older handling of the space after special tokens.
    package var isLegacy: Bool?
    package var cleansUpTokenizationSpaces: Bool?
    /// Translation models: the language of the texts.
    package var sourceLanguage: String?
    /// NLLB: the language follows the text, as in its first releases.
    package var isLegacyBehaviour = false
    /// M2M100: `m2m100` or `wmt21`.
    package var languageCodes: String?
    /// Marian: source and target have a vocabulary each.
    package var separatesVocabularies = false
    /// Number of T5's sentinel tokens.
    package var extraIDs: Int?
    /// Inputs that the model takes, such as `token_type_ids`.
    package var modelInputNames: [String] = []
    /// Jinja sources by name: `default`, and others such as `tool_use`.
    package var chatTemplates: [ByteText: String] = [:]

    package init() {}
}

extension TokenizerConfiguration {
    static let tokenNames = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"]
    /// Numbers from here on stand for "no limit" in the files.
    private static let lengthLimit = 1_000_000_000

    init(_ root: JSONField) throws {
        tokenizerClass = root.value["tokenizer_class"]?.string
        if let length = root.value["model_max_length"]?.double, length > 0, length < Double(Self.lengthLimit) {
            modelMaxLength = Int(length)
        }
        paddingSide = try root.child("padding_side").map(Self.side)
        truncationSide = try root.child("truncation_side").map(Self.side)
        addsBeginToken = root.value["add_bos_token"]?.bool
        addsEndToken = root.value["add_eos_token"]?.bool
        addsPrefixSpace = root.value["add_prefix_space"]?.bool
        splitsSpecialTokens = root.value["split_special_tokens"]?.bool ?? false
        isLegacy = root.value["legacy"]?.bool
        cleansUpTokenizationSpaces = root.value["clean_up_tokenization_spaces"]?.bool
        sourceLanguage = root.value["src_lang"]?.string
        isLegacyBehaviour = root.value["legacy_behaviour"]?.bool ?? false
        languageCodes = root.value["language_codes"]?.string
        separatesVocabularies = root.value["separate_vocabs"]?.bool ?? false
        extraIDs = try root.child("extra_ids").map { field throws in try field.integer(in: 0...100_000) }
        modelInputNames = (root.value["model_input_names"]?.array ?? []).compactMap(\.string)
        try readTokens(root)
        try readTemplates(root)
    }

    private static func side(_ field: JSONField) throws -> PaddingSide {
        guard let side = PaddingSide(rawValue: try field.string()) else { throw field.unexpected("'left' or 'right'") }
        return side
    }

    /// Special tokens; also the whole content of `special_tokens_map.json`.
    mutating func readTokens(_ root: JSONField) throws {
        for name in Self.tokenNames {
            if let field = root.child(name), let token = try Self.specialToken(field) { namedTokens[name] = token }
        }
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            guard let list = root.child(key) else { continue }
            if case .object = list.value {
                for (name, field) in try list.members() {
                    if let token = try Self.specialToken(field) { namedTokens[name] = token }
                }
                continue
            }
            for element in try list.elements() {
                guard let token = try Self.specialToken(element) else { continue }
                if !additionalSpecialTokens.contains(where: { $0.content.hasSameBytes(as: token.content) }) {
                    additionalSpecialTokens.append(token)
                }
            }
        }
        for (key, field) in try root.child("added_tokens_decoder")?.members() ?? [] {
            guard let id = Int32(key), id >= 0, Int(id) <= TokenTable.maximumID else {
                throw field.unexpected("an id as key")
            }
            addedTokens.append(try AddedToken(field, id: id))
        }
        addedTokens.sort { $0.id < $1.id }
    }

    /// A text or a token object; `false` and other values stand for no token.
    private static func specialToken(_ field: JSONField) throws -> AddedToken? {
        if let text = field.value.string {
            var token = AddedToken(content: text, id: -1, isSpecial: true)
            token.isNormalized = false
            return token
        }
        guard case .object = field.value else { return nil }
        var token = try AddedToken(field, id: -1)
        token.isSpecial = true
        return token
    }

    private mutating func readTemplates(_ root: JSONField) throws {
        guard let field = root.child("chat_template") else { return }
        if let text = field.value.string {
            chatTemplates["default"] = text
            return
        }
        // transformers writes a list of named templates, and keeps an object of texts by name as it is.
        if case .object(let templates) = field.value {
            for (name, template) in templates {
                if let text = template.string { chatTemplates[name] = text }
            }
            return
        }
        // Other values are no templates, and texts can be encoded without one.
        guard case .array = field.value else { return }
        for element in try field.elements() {
            chatTemplates[try element.text("name")] = try element.text("template")
        }
    }
}

/// The special tokens of a tokenizer with their ids.
public struct SpecialTokens: Sendable, Equatable {
    /// A special token.
    public struct Token: Sendable, Equatable {
        /// The token's text.
        public var text: String
        /// The token's id.
        public var id: Int32

        package init(text: String, id: Int32) {
            self.text = text
            self.id = id
        }
    }

    /// Begins a sequence.
    public var bos: Token?
    /// Ends a sequence.
    public var eos: Token?
    /// Stands for what the vocabulary lacks.
    public var unk: Token?
    /// Separates two texts.
    package var sep: Token?
    /// Fills rows to equal length.
    public var pad: Token?
    /// Begins a text to be classified.
    package var cls: Token?
    /// Stands for a token to be predicted.
    package var mask: Token?
    /// Further special tokens without a name.
    public var additional: [Token] = []
    /// All named tokens by the name the configuration gives them (`bos_token`, …), as chat templates see them.
    public var named: [String: Token] = [:]

    init(_ configuration: TokenizerConfiguration, id: (String) -> Int32?) {
        func token(_ token: AddedToken) -> Token? { id(token.content).map { Token(text: token.content, id: $0) } }
        named = configuration.namedTokens.compactMapValues(token)
        additional = configuration.additionalSpecialTokens.compactMap(token)
        bos = named["bos_token"]
        eos = named["eos_token"]
        unk = named["unk_token"]
        sep = named["sep_token"]
        pad = named["pad_token"]
        cls = named["cls_token"]
        mask = named["mask_token"]
    }
}
