package import NibbleCore

/// A grammar as a value: fixed text, values of schemas, and their combinations. Function calls in a model's own format are built
/// of these.
package indirect enum GrammarPiece: Hashable, Sendable {
    case text(String)
    /// A value of a JSON schema. With `orAnyObject`, one of a schema that is refused is any object.
    case value(schema: SchemaText, SchemaOptions, orAnyObject: Bool = false)
    /// The texts that match a regular expression (ECMA 262) as a whole.
    case regex(String)
    /// Any text in which none of these occurs, and which does not begin, after white space, with `start`.
    case textWithout([String], start: String? = nil)
    case sequence([GrammarPiece])
    case either([GrammarPiece])
    /// One or more, with a text between them.
    case list(GrammarPiece, separator: String)

    /// A schema by its text, so that equal texts are equal pieces.
    package struct SchemaText: Hashable, Sendable {
        package let text: String
        package init(_ value: JSONValue) { text = value.encoded() }
    }
}

/// What a grammar is put together from.
struct GrammarParts {
    var pool = ExpressionPool()
    var json = JSONText()
    var rules = GrammarRules()

    mutating func rule(_ alternatives: [[GrammarRules.Symbol]]) throws(GrammarError) -> Int32 {
        let rule = rules.addRule()
        try rules.set(rule, to: alternatives)
        return rule
    }

    // MARK: Pieces

    private static let maximumDepth = 64

    mutating func symbol(_ piece: GrammarPiece, depth: Int = 0) throws(GrammarError) -> GrammarRules.Symbol {
        guard depth < Self.maximumDepth else { throw .tooComplex(what: "levels of a grammar", limit: Self.maximumDepth) }
        switch piece {
        case .text(let text): return .lexeme(pool.text(text))
        case .value(let schema, let options, let orAnyObject):
            do {
                return .rule(try value(schema, options))
            } catch {
                guard orAnyObject else { throw error }
                return .rule(try SchemaCompiler.add(["type": "object"], options, to: &self))
            }
        case .regex(let pattern): return .lexeme(try RegexCompiler.whole(pattern, .plain, &pool, &json))
        case .textWithout(let marks, let start): return .lexeme(textWithout(marks, start))
        case .sequence(let pieces):
            var symbols: [GrammarRules.Symbol] = []
            for piece in pieces { symbols.append(try symbol(piece, depth: depth + 1)) }
            return .rule(try rule([symbols]))
        case .either(let pieces):
            var alternatives: [[GrammarRules.Symbol]] = []
            for piece in pieces { alternatives.append([try symbol(piece, depth: depth + 1)]) }
            return .rule(try rule(alternatives))
        case .list(let piece, let separator):
            let element = try symbol(piece, depth: depth + 1)
            let rest = rules.addRule()
            let next = try rule([[.lexeme(pool.text(separator)), element, .rule(rest)]])
            try rules.set(rest, to: [[], [.rule(next)]])
            return .rule(try rule([[element, .rule(rest)]]))
        }
    }

    private mutating func value(_ schema: GrammarPiece.SchemaText, _ options: SchemaOptions) throws(GrammarError) -> Int32 {
        let value: JSONValue
        do {
            value = try JSONValue.parse(schema.text)
        } catch {
            throw .invalidKeyword("schema", path: "#", expected: "JSON")
        }
        return try SchemaCompiler.add(value, options, to: &self)
    }

    private mutating func textWithout(_ marks: [String], _ start: String?) -> Expression {
        let any = pool.star(pool.utf8(.all))
        var parts = [any]
        for mark in marks { parts.append(pool.complement(pool.sequence([any, pool.text(mark), any]))) }
        if let start {
            let space = pool.star(pool.bytes(ByteSet([0x20, 0x0A, 0x0D, 0x09])))
            parts.append(pool.complement(pool.sequence([space, pool.text(start), any])))
        }
        return pool.both(parts)
    }
}

extension Grammar {
    /// The texts of a piece.
    /// - Throws: ``GrammarError``
    package convenience init(_ piece: GrammarPiece) throws(GrammarError) {
        var parts = GrammarParts()
        let start = try parts.rule([[try parts.symbol(piece)]])
        self.init(try GrammarAutomaton(parts.pool, parts.rules, start: start))
    }
}
