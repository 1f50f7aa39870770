internal import NibbleCore

/// Reads grammars in the notation of llama.cpp's GBNF: rules `name ::= …` of literals, bracketed sets, `.`, names, groups,
/// alternatives and the repetitions `* + ? {m} {m,} {m,n}`; `#` begins a comment.
struct GBNFParser {
    private indirect enum Node {
        case set(ScalarRanges)
        case literal([Unicode.Scalar])
        case name(String)
        case sequence([Node])
        case alternatives([Node])
        case repetition(Node, minimum: Int, maximum: Int?)
    }

    private let scalars: [Unicode.Scalar]
    private var index = 0
    private var depth = 0
    private var pool = ExpressionPool()
    private var rules = GrammarRules()
    private var names: [ByteText: Int32] = [:]
    private static let maximumRepetition = 2000
    private static let maximumNesting = 64

    static func compile(_ text: String) throws(GrammarError) -> GrammarAutomaton {
        guard text.utf8.count <= 1 << 20 else { throw .tooComplex(what: "bytes", limit: 1 << 20) }
        var parser = GBNFParser(text)
        return try parser.compile()
    }

    private init(_ text: String) { scalars = Array(text.unicodeScalars) }

    private var line: Int { scalars[..<min(index, scalars.count)].count { $0 == "\n" } + 1 }
    private func error(_ problem: String) -> GrammarError { .notation(line: line, problem: problem) }
    private var next: Unicode.Scalar? { index < scalars.count ? scalars[index] : nil }

    private mutating func compile() throws(GrammarError) -> GrammarAutomaton {
        var parsed: [(name: String, node: Node)] = []
        skipSpace(acrossLines: true)
        while next != nil {
            let name = try name()
            skipSpace(acrossLines: false)
            for scalar in "::=".unicodeScalars {
                guard next == scalar else { throw error("'::=' was expected after \(name.debugDescription)") }
                index += 1
            }
            skipSpace(acrossLines: true)
            let node = try alternatives(isGroup: false)
            guard names[ByteText(name)] == nil else { throw error("a second rule \(name.debugDescription)") }
            names[ByteText(name)] = rules.addRule()
            parsed.append((name, node))
            skipSpace(acrossLines: true)
        }
        guard let root = names[ByteText("root")] else { throw .notation(line: line, problem: "there is no rule \"root\"") }
        for (name, node) in parsed {
            guard let rule = names[ByteText(name)] else { continue }
            try rules.set(rule, to: try symbols(ofAlternatives: node))
        }
        do {
            return try GrammarAutomaton(pool, rules, start: root)
        } catch .notation(_, let problem) {
            throw .notation(line: 1, problem: problem)
        }
    }

    // MARK: Syntax

    private mutating func skipSpace(acrossLines: Bool) {
        while let scalar = next {
            if scalar == "#" {
                while let scalar = next, scalar != "\n" { index += scalar == "\n" ? 0 : 1 }
            } else if scalar == " " || scalar == "\t" || (acrossLines && (scalar == "\n" || scalar == "\r")) {
                index += 1
            } else {
                return
            }
        }
    }

    private static func isNamePart(_ scalar: Unicode.Scalar) -> Bool {
        scalar == "-" || scalar == "_"
            || (scalar.isASCII && (scalar.properties.isAlphabetic || scalar.properties.numericType != nil))
    }

    private mutating func name() throws(GrammarError) -> String {
        var name = ""
        while let scalar = next, Self.isNamePart(scalar) {
            name.unicodeScalars.append(scalar)
            index += 1
        }
        guard !name.isEmpty else { throw error("a rule's name was expected, found \(next.map { "'\($0)'" } ?? "the end")") }
        return name
    }

    private mutating func alternatives(isGroup: Bool) throws(GrammarError) -> Node {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.maximumNesting else { throw error("groups are nested more than \(Self.maximumNesting) deep") }
        var branches = [try sequence(isGroup: isGroup)]
        while next == "|" {
            index += 1
            skipSpace(acrossLines: true)
            branches.append(try sequence(isGroup: isGroup))
        }
        return branches.count == 1 ? branches[0] : .alternatives(branches)
    }

    private mutating func sequence(isGroup: Bool) throws(GrammarError) -> Node {
        var parts: [Node] = []
        while let scalar = next {
            let part: Node
            switch scalar {
            case "\"": part = .literal(try literal())
            case "[": part = .set(try bracket())
            case ".":
                index += 1
                part = .set(.all)
            case "(":
                index += 1
                skipSpace(acrossLines: true)
                part = try alternatives(isGroup: true)
                guard next == ")" else { throw error("')' was expected") }
                index += 1
            case _ where Self.isNamePart(scalar): part = .name(try name())
            default: return .sequence(parts)
            }
            parts.append(try repeated(part))
            skipSpace(acrossLines: isGroup)
        }
        return .sequence(parts)
    }

    private mutating func repeated(_ node: Node) throws(GrammarError) -> Node {
        var node = node
        for _ in 0..<Self.maximumNesting {
            guard let scalar = next else { return node }
            switch scalar {
            case "*": node = .repetition(node, minimum: 0, maximum: nil)
            case "+": node = .repetition(node, minimum: 1, maximum: nil)
            case "?": node = .repetition(node, minimum: 0, maximum: 1)
            case "{":
                node = try counted(node)
                continue
            default: return node
            }
            index += 1
        }
        throw error("more than \(Self.maximumNesting) repetitions of one thing")
    }

    private mutating func counted(_ node: Node) throws(GrammarError) -> Node {
        index += 1
        let first = try number()
        var last = first
        if next == "," {
            index += 1
            last = try number()
        } else if first == nil {
            throw error("a number was expected after '{'")
        }
        guard next == "}" else { throw error("'}' was expected") }
        index += 1
        if let last, last < first ?? 0 { throw error("a repetition {\(first ?? 0),\(last)}") }
        return .repetition(node, minimum: first ?? 0, maximum: last)
    }

    private mutating func number() throws(GrammarError) -> Int? {
        var value: Int?
        while let scalar = next, ("0"..."9").contains(scalar) {
            value = (value ?? 0) * 10 + Int(scalar.value - 0x30)
            index += 1
            guard let value, value <= Self.maximumRepetition else {
                throw error("a repetition of more than \(Self.maximumRepetition)")
            }
        }
        return value
    }

    private mutating func literal() throws(GrammarError) -> [Unicode.Scalar] {
        index += 1
        var text: [Unicode.Scalar] = []
        while let scalar = next, scalar != "\"" {
            guard scalar != "\n" else { throw error("a literal without its closing quote") }
            text.append(try character())
        }
        guard next == "\"" else { throw error("a literal without its closing quote") }
        index += 1
        return text
    }

    private mutating func bracket() throws(GrammarError) -> ScalarRanges {
        index += 1
        var isNegated = false
        if next == "^" {
            isNegated = true
            index += 1
        }
        var ranges: [ClosedRange<UInt32>] = []
        while let scalar = next, scalar != "]" {
            let low = try character().value
            var high = low
            if next == "-", index + 1 < scalars.count, scalars[index + 1] != "]" {
                index += 1
                high = try character().value
            }
            guard low <= high else { throw error("an empty range in brackets") }
            ranges.append(low...high)
        }
        guard next == "]" else { throw error("'[' without its ']'") }
        index += 1
        let set = ScalarRanges(ranges)
        return isNegated ? set.complement : set
    }

    private mutating func character() throws(GrammarError) -> Unicode.Scalar {
        guard let scalar = next else { throw error("it ends too early") }
        index += 1
        guard scalar == "\\" else { return scalar }
        guard let letter = next else { throw error("a backslash at the end") }
        index += 1
        switch letter {
        case "n": return "\n"
        case "r": return "\r"
        case "t": return "\t"
        case "x": return try hexadecimal(2)
        case "u": return try hexadecimal(4)
        case "U": return try hexadecimal(8)
        case "\\", "\"", "[", "]", "-", "^": return letter
        default: throw error("the escape '\\\(letter)'")
        }
    }

    private mutating func hexadecimal(_ digits: Int) throws(GrammarError) -> Unicode.Scalar {
        let end = min(index + digits, scalars.count)
        let text = String(String.UnicodeScalarView(scalars[index..<end]))
        guard text.count == digits, !text.hasPrefix("+"), let value = UInt32(text, radix: 16), let scalar = Unicode.Scalar(value)
        else {
            throw error("the escape with the digits \(text.debugDescription)")
        }
        index = end
        return scalar
    }

    // MARK: Rules

    private mutating func symbols(ofAlternatives node: Node) throws(GrammarError) -> [[GrammarRules.Symbol]] {
        guard case .alternatives(let branches) = node else { return [try symbols(of: node)] }
        var result: [[GrammarRules.Symbol]] = []
        for branch in branches { result.append(try symbols(of: branch)) }
        return result
    }

    private mutating func symbols(of node: Node) throws(GrammarError) -> [GrammarRules.Symbol] {
        if let expression = expression(node) { return expression == ExpressionPool.empty ? [] : [.lexeme(expression)] }
        switch node {
        case .name(let name):
            guard let rule = names[ByteText(name)] else {
                throw .notation(line: line, problem: "there is no rule \(name.debugDescription)")
            }
            return [.rule(rule)]
        case .sequence(let parts):
            var result: [GrammarRules.Symbol] = []
            for part in parts { result += try symbols(of: part) }
            return result
        case .alternatives:
            let rule = rules.addRule()
            try rules.set(rule, to: try symbols(ofAlternatives: node))
            return [.rule(rule)]
        case .repetition(let inner, let minimum, let maximum):
            return try repetition(of: try symbols(of: inner), minimum, maximum)
        case .set, .literal: return []
        }
    }

    private mutating func repetition(
        of body: [GrammarRules.Symbol], _ minimum: Int, _ maximum: Int?
    ) throws(GrammarError) -> [GrammarRules.Symbol] {
        let required = (0..<minimum).flatMap { _ in body }
        guard maximum != minimum else { return required }
        guard let maximum else {
            let rule = rules.addRule()
            try rules.set(rule, to: [[], body + [.rule(rule)]])
            return required + [.rule(rule)]
        }
        var tail: [GrammarRules.Symbol] = []
        for _ in minimum..<maximum {
            let rule = rules.addRule()
            try rules.set(rule, to: [[], body + tail])
            tail = [.rule(rule)]
        }
        return required + tail
    }

    /// The lexeme of a node without names.
    private mutating func expression(_ node: Node) -> Expression? {
        switch node {
        case .set(let set): return pool.utf8(set)
        case .literal(let text): return pool.text(Array(String(String.UnicodeScalarView(text)).utf8))
        case .name: return nil
        case .sequence(let parts):
            var expressions: [Expression] = []
            for part in parts {
                guard let expression = expression(part) else { return nil }
                expressions.append(expression)
            }
            return pool.sequence(expressions)
        case .alternatives(let parts):
            var expressions: [Expression] = []
            for part in parts {
                guard let expression = expression(part) else { return nil }
                expressions.append(expression)
            }
            return pool.either(expressions)
        case .repetition(let inner, let minimum, let maximum):
            guard let expression = expression(inner) else { return nil }
            return pool.repetition(expression, minimum, maximum)
        }
    }
}
