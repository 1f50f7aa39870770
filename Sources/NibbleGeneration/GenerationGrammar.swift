internal import NibbleCore
package import NibbleGrammar
internal import Synchronization

/// What generated text must look like: values of a JSON schema, texts of a regular expression or of a grammar.
///
/// ```swift
/// request.grammar = try GenerationGrammar(jsonSchema: #"{"type": "array", "items": {"type": "integer"}}"#)
/// ```
/// Compiled once, it may serve any number of requests at a time.
public struct GenerationGrammar: Sendable {
    package let grammar: Grammar

    package init(_ grammar: Grammar) { self.grammar = grammar }

    /// Values that satisfy a JSON schema (draft 2020-12 or 7), members in the schema's order unless `hasAnyOrder`.
    ///
    /// - Parameters:
    ///   - jsonSchema: the schema's text.
    ///   - isLenient: ignores keywords that cannot be enforced exactly; otherwise they are refused.
    ///   - isCompact: no white space between the elements of a value.
    ///   - hasAnyOrder: members of objects may come in any order. A schema may say so itself: `"x-any-order": true` at its root.
    /// - Throws: ``GrammarError``; ``JSONError`` for a text that is no JSON.
    public init(jsonSchema: String, isLenient: Bool = false, isCompact: Bool = false, hasAnyOrder: Bool = false) throws {
        var options = SchemaOptions()
        options.isLenient = isLenient
        options.isCompact = isCompact
        options.hasAnyOrder = hasAnyOrder
        grammar = try Grammar(schema: JSONValue.parse(jsonSchema), options: options)
    }

    /// Texts that match a regular expression (ECMA 262) as a whole.
    /// - Throws: ``GrammarError``
    public init(regex: String) throws { grammar = try Grammar(regex: regex) }

    /// Texts of the rule `root` of a grammar in llama.cpp's notation.
    /// - Throws: ``GrammarError``
    public init(gbnf: String) throws { grammar = try Grammar(gbnf: gbnf) }
}

/// The tokens of a model as grammars see them, made when the first grammar needs them.
package final class GrammarTokens: Sendable {
    private let textBytes: @Sendable (Int32) -> [UInt8]
    private let made = Mutex<[(key: Key, vocabulary: GrammarVocabulary)]>([])
    /// Vocabularies that are kept: requests differ in few ways.
    private static let limit = 4

    private struct Key: Equatable {
        var count: Int
        var ends: [Int32]
        var marks: [Int32: [UInt8]]
    }

    /// - Parameter textBytes: the bytes that a token adds to the text; none for special tokens and for those that there are not.
    package init(_ textBytes: @escaping @Sendable (Int32) -> [UInt8]) { self.textBytes = textBytes }

    /// The vocabulary of a model's `count` tokens.
    ///
    /// - Parameters:
    ///   - ends: tokens that end a text. They stand for no text themselves.
    ///   - marks: special tokens that do stand for text, such as those before a function call.
    package func vocabulary(_ count: Int, ends: [Int32], marks: [Int32: [UInt8]] = [:]) -> GrammarVocabulary {
        let key = Key(count: count, ends: ends, marks: marks)
        return made.withLock { made in
            if let index = made.firstIndex(where: { $0.key == key }) { return made[index].vocabulary }
            let ends = Set(ends)
            let tokens = (0..<Int32(count)).map { ends.contains($0) ? [] : marks[$0] ?? textBytes($0) }
            let vocabulary = GrammarVocabulary(tokenBytes: tokens, endTokens: key.ends)
            if made.count == Self.limit { made.removeFirst() }
            made.append((key, vocabulary))
            return vocabulary
        }
    }
}
