import NibbleCore

/// How the tokenizer of a family of translation models marks languages.
enum LanguageStyle: Sendable {
    /// `__ko__ A </s>`
    case m2m100
    /// `kor_Hang A </s>`, or `A </s> kor_Hang` as NLLB's first releases had it.
    case nllb
    /// `A </s> ko_KR`
    case mBart
    /// `ko_KR A </s>`
    case mBart50
    /// `>>kor<< A </s>` names the target. The source has no token, and a model of one target has none at all.
    case marian

    /// - Parameter tokenizerClass: the Python class; of the other classes none marks languages.
    init?(tokenizerClass: String) {
        switch tokenizerClass.replacing(/Fast$/, with: "") {
        case "M2M100Tokenizer": self = .m2m100
        case "NllbTokenizer": self = .nllb
        case "MBartTokenizer": self = .mBart
        case "MBart50Tokenizer": self = .mBart50
        case "MarianTokenizer": self = .marian
        default: return nil
        }
    }

    /// The source language where neither the caller nor the files name one.
    var defaultSource: String? {
        switch self {
        case .m2m100: "en"
        case .nllb: "eng_Latn"
        case .mBart, .mBart50: "en_XX"
        case .marian: nil
        }
    }

    /// Whether the target language is the first token of an answer. Marian is told the target by its input.
    var forcesTarget: Bool { self != .marian }

    /// The code of the language that `token` stands for; `nil` if it stands for none.
    func code(of token: String) -> String? {
        let match =
            switch self {
            case .m2m100: token.wholeMatch(of: /__([a-z]{2,3})__/)?.1
            case .nllb: token.wholeMatch(of: /([a-z]{3}_[A-Z][a-z]{3})/)?.1
            case .mBart, .mBart50: token.wholeMatch(of: /([a-z]{2}_[A-Z]{2})/)?.1
            case .marian: token.wholeMatch(of: />>([^<>]+)<</)?.1
            }
        return match.map(String.init)
    }
}

/// The languages that a tokenizer can mark.
struct Languages: Sendable {
    let style: LanguageStyle
    /// Codes in the order of their ids.
    let codes: [String]
    private let tokens: [ByteText: SpecialTokens.Token]
    private let end: SpecialTokens.Token
    private let followsText: Bool

    /// - Parameters:
    ///   - added: the tokenizer's added tokens. Of these, and of all tokens of Marian, those that look like a language are one.
    ///   - end: ends every text. Without one nothing is marked.
    init?(
        _ configuration: TokenizerConfiguration, added: [AddedToken], table: TokenTable, end: SpecialTokens.Token?
    ) {
        guard let style = configuration.tokenizerClass.flatMap(LanguageStyle.init), let end else { return nil }
        var found = added.map { SpecialTokens.Token(text: $0.content, id: $0.id) }
        if style == .marian {
            found = (0..<Int32(table.idLimit)).compactMap { id in
                guard let text = table.text(of: id), text.starts(with: [0x3E, 0x3E]) else { return nil }
                return SpecialTokens.Token(text: String(decoding: text, as: UTF8.self), id: id)
            }
        }
        let languages = found.sorted { $0.id < $1.id }.compactMap { token in
            style.code(of: token.text).map { (code: $0, token: token) }
        }
        self.style = style
        self.end = end
        codes = languages.map(\.code)
        tokens = Dictionary(languages.map { (ByteText($0.code), $0.token) }) { first, _ in first }
        followsText = style == .mBart || (style == .nllb && configuration.isLegacyBehaviour)
    }

    /// - Throws: ``TokenizerError/unknownLanguage(_:near:)``
    func token(_ code: String) throws(TokenizerError) -> SpecialTokens.Token {
        guard let token = known(code) else { throw .unknownLanguage(code, near: near(code)) }
        return token
    }

    func known(_ code: String) -> SpecialTokens.Token? { tokens[ByteText(code)] }

    /// What stands around a text in the language of `token`, or in none.
    func template(_ token: SpecialTokens.Token?) -> PostProcessor {
        followsText
            ? .template(.init(before: [], after: [end, token].compactMap(\.self)))
            : .template(.init(before: [token].compactMap(\.self), after: [end]))
    }

    /// Languages that may have been meant: those that share the longest beginning, or differ in few letters.
    private func near(_ code: String) -> [String] {
        let wanted = Array(code.lowercased().utf8)
        let ranked = codes.map { known -> (code: String, shared: Int, distance: Int) in
            let letters = Array(known.lowercased().utf8)
            let shared = zip(wanted, letters).prefix { $0 == $1 }.count
            return (known, shared, editDistance(wanted, letters))
        }
        let close = ranked.filter { $0.shared >= 2 || ($0.distance <= 2 && $0.distance * 2 < wanted.count) }
        return close.sorted { ($1.shared, $0.distance) < ($0.shared, $1.distance) }.prefix(5).map(\.code)
    }

    /// Insertions, deletions and substitutions that turn `a` into `b`.
    private func editDistance(_ a: [UInt8], _ b: [UInt8]) -> Int {
        // A code is short; whoever gives a page of text meant no code.
        guard a.count <= 64 else { return a.count }
        var row = Array(0...b.count)
        for (i, letter) in a.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for (j, other) in b.enumerated() {
                let substituted = diagonal + (letter == other ? 0 : 1)
                diagonal = row[j + 1]
                row[j + 1] = min(substituted, row[j] + 1, diagonal + 1)
            }
        }
        return row[b.count]
    }
}

extension PostProcessor.Template {
    /// `before A after` and `before A B after`.
    init(before: [SpecialTokens.Token], after: [SpecialTokens.Token]) {
        specials = [:]
        for token in before + after { specials[ByteText(token.text)] = [(token.id, token.text)] }
        func elements(_ tokens: [SpecialTokens.Token]) -> [Element] { tokens.map { .special(name: $0.text, typeID: 0) } }
        let first = Element.sequence(isSecond: false, typeID: 0)
        single = elements(before) + [first] + elements(after)
        pair = elements(before) + [first, .sequence(isSecond: true, typeID: 0)] + elements(after)
    }
}
