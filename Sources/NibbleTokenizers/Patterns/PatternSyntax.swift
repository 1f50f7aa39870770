/// The syntax tree of a regular expression of the dialect that tokenizers use.
indirect enum PatternNode {
    case set(ScalarSet)
    case sequence([PatternNode])
    case alternatives([PatternNode])
    /// `maximum` nil: unbounded. A possessive repetition never gives back what it took.
    case repetition(PatternNode, minimum: Int, maximum: Int?, isPossessive: Bool)
    case lookAhead(PatternNode, isNegative: Bool)
    case atomic(PatternNode)
    case lineStart
}

/// The part of a pattern that is not supported.
struct PatternSyntaxError: Error {
    var syntax: String
}

/// Parses the Oniguruma dialect as far as tokenizers use it: sets with nested sets, `\p{…}`, `\s \S \d \D \w \W`, groups, `(?i:…)`,
/// look-ahead, atomic groups, greedy and possessive repetition. Anything else is an error that names it.
struct PatternParser {
    private static let maximumLength = 20_000

    private let pattern: [Unicode.Scalar]
    private var index = 0
    private var depth = 0
    private var ignoresCase = false

    static func parse(_ pattern: String) throws(PatternSyntaxError) -> PatternNode {
        guard pattern.utf8.count <= maximumLength else {
            throw PatternSyntaxError(syntax: "\(pattern.utf8.count) bytes, more than \(maximumLength)")
        }
        var parser = PatternParser(pattern: Array(pattern.unicodeScalars))
        let node = try parser.alternatives()
        if parser.index < parser.pattern.count { throw PatternSyntaxError(syntax: "unmatched ')'") }
        return node
    }

    private init(pattern: [Unicode.Scalar]) { self.pattern = pattern }

    private var next: Unicode.Scalar? { index < pattern.count ? pattern[index] : nil }

    private mutating func consume(_ text: String) -> Bool {
        let scalars = Array(text.unicodeScalars)
        guard pattern[index...].starts(with: scalars) else { return false }
        index += scalars.count
        return true
    }

    private mutating func alternatives() throws(PatternSyntaxError) -> PatternNode {
        depth += 1
        defer { depth -= 1 }
        guard depth <= 64 else { throw PatternSyntaxError(syntax: "groups nested more than 64 deep") }
        var branches = [try sequence()]
        while consume("|") { branches.append(try sequence()) }
        return branches.count == 1 ? branches[0] : .alternatives(branches)
    }

    private mutating func sequence() throws(PatternSyntaxError) -> PatternNode {
        var parts: [PatternNode] = []
        while let scalar = next, scalar != "|", scalar != ")" {
            parts.append(try quantified(try atom()))
        }
        return parts.count == 1 ? parts[0] : .sequence(parts)
    }
}

// MARK: - Repetition

extension PatternParser {
    private mutating func quantified(_ atom: PatternNode) throws(PatternSyntaxError) -> PatternNode {
        var node = atom
        var count = 0
        while let scalar = next {
            var bounds: (Int, Int?)
            var isInterval = false
            switch scalar {
            case "?": bounds = (0, 1)
            case "*": bounds = (0, nil)
            case "+": bounds = (1, nil)
            case "{":
                guard let interval = try interval() else { return node }
                bounds = interval
                isInterval = true
            default: return node
            }
            if !isInterval { index += 1 }
            if next == "?" { throw PatternSyntaxError(syntax: "lazy repetition '\(scalar)?'") }
            let isPossessive = !isInterval && consume("+")
            switch node {
            case .lookAhead, .lineStart: throw PatternSyntaxError(syntax: "repetition of something without width")
            default: break
            }
            count += 1
            guard count <= 8 else { throw PatternSyntaxError(syntax: "more than 8 repetitions of one thing") }
            node = .repetition(node, minimum: bounds.0, maximum: bounds.1, isPossessive: isPossessive)
        }
        return node
    }

    /// `{n}`, `{n,}`, `{,m}` or `{n,m}`, consumed; `nil` if the brace stands for itself.
    private mutating func interval() throws(PatternSyntaxError) -> (Int, Int?)? {
        guard let close = pattern[index...].firstIndex(of: "}") else { return nil }
        let body = String(String.UnicodeScalarView(pattern[(index + 1)..<close]))
        let parts = body.split(separator: ",", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count), body != ",", !body.isEmpty,
            body.utf8.allSatisfy({ $0 == 0x2C || ($0 >= 0x30 && $0 <= 0x39) })
        else { return nil }
        let numbers = parts.map { Int($0) }
        for (text, number) in zip(parts, numbers) where !text.isEmpty {
            guard let number, number <= 1000 else { throw PatternSyntaxError(syntax: "repetition {\(body)} beyond 1000") }
        }
        index = close + 1
        let minimum = numbers[0] ?? 0
        let maximum = parts.count == 1 ? minimum : numbers[1]
        if let maximum, maximum < minimum { throw PatternSyntaxError(syntax: "repetition {\(body)}") }
        return (minimum, maximum)
    }
}

// MARK: - Atoms

extension PatternParser {
    private mutating func atom() throws(PatternSyntaxError) -> PatternNode {
        guard let scalar = next else { throw PatternSyntaxError(syntax: "unexpected end") }
        switch scalar {
        case "(": return try group()
        case "[":
            index += 1
            return .set(try set())
        case ".":
            index += 1
            return .set(ScalarSet.scalar(0x0A).negated)
        case "\\": return .set(cased(try escape()))
        case "$":
            // The end of a line: nothing but a newline may follow.
            index += 1
            return .lookAhead(.set(ScalarSet.scalar(0x0A).negated), isNegative: true)
        case "^":
            index += 1
            return .lineStart
        case "?", "*", "+": throw PatternSyntaxError(syntax: "'\(scalar)' without anything to repeat")
        default:
            index += 1
            return .set(cased(.scalar(scalar.value)))
        }
    }

    private func cased(_ set: ScalarSet) -> ScalarSet {
        var set = set
        if ignoresCase { set.closeUnderCase() }
        return set
    }

    private mutating func group() throws(PatternSyntaxError) -> PatternNode {
        let outerCase = ignoresCase
        defer { ignoresCase = outerCase }
        let wrap: (PatternNode) -> PatternNode
        if consume("(?:") {
            wrap = { $0 }
        } else if consume("(?i:") {
            ignoresCase = true
            wrap = { $0 }
        } else if consume("(?!") {
            wrap = { .lookAhead($0, isNegative: true) }
        } else if consume("(?=") {
            wrap = { .lookAhead($0, isNegative: false) }
        } else if consume("(?>") {
            wrap = { .atomic($0) }
        } else if pattern[index...].starts(with: "(?".unicodeScalars) {
            throw PatternSyntaxError(syntax: "group '\(String(String.UnicodeScalarView(pattern[index...].prefix(4))))'")
        } else {
            index += 1
            wrap = { $0 }
        }
        let body = try alternatives()
        guard consume(")") else { throw PatternSyntaxError(syntax: "unmatched '('") }
        return wrap(body)
    }

    /// The class after a backslash, here and inside brackets.
    private mutating func escape() throws(PatternSyntaxError) -> ScalarSet {
        index += 1
        guard let letter = next else { throw PatternSyntaxError(syntax: "a backslash at the end") }
        index += 1
        switch letter {
        case "n": return .scalar(0x0A)
        case "r": return .scalar(0x0D)
        case "t": return .scalar(0x09)
        case "f": return .scalar(0x0C)
        case "v": return .scalar(0x0B)
        case "e": return .scalar(0x1B)
        case "a": return .scalar(0x07)
        case "s": return .whitespace
        case "S": return ScalarSet.whitespace.negated
        case "d": return .categories(UnicodeClasses.decimalNumber)
        case "D": return ScalarSet.categories(UnicodeClasses.decimalNumber).negated
        case "w": return .word
        case "W": return ScalarSet.word.negated
        case "p": return try property()
        case "P": return try property().negated
        case "u", "x": return .scalar(try codePoint(letter))
        default:
            if letter.properties.isAlphabetic || ("0"..."9").contains(letter) {
                throw PatternSyntaxError(syntax: "escape '\\\(letter)'")
            }
            return .scalar(letter.value)
        }
    }

    private mutating func codePoint(_ letter: Unicode.Scalar) throws(PatternSyntaxError) -> UInt32 {
        var digits = ""
        if letter == "x", consume("{") {
            while let scalar = next, scalar != "}" {
                digits.unicodeScalars.append(scalar)
                index += 1
            }
            index += 1
        } else {
            while let scalar = next, digits.count < (letter == "u" ? 4 : 2), Character(scalar).isHexDigit {
                digits.unicodeScalars.append(scalar)
                index += 1
            }
        }
        guard let value = UInt32(digits, radix: 16), Unicode.Scalar(value) != nil else {
            throw PatternSyntaxError(syntax: "escape '\\\(letter)\(digits.prefix(12))'")
        }
        return value
    }

    private mutating func property() throws(PatternSyntaxError) -> ScalarSet {
        guard consume("{"), let close = pattern[index...].firstIndex(of: "}") else {
            throw PatternSyntaxError(syntax: "'\\p' without a name in braces")
        }
        var name = String(String.UnicodeScalarView(pattern[index..<close]))
        index = close + 1
        let isNegated = name.hasPrefix("^")
        if isNegated { name.removeFirst() }
        guard let set = Self.properties[name.lowercased()] else { throw PatternSyntaxError(syntax: "property '\\p{\(name)}'") }
        return isNegated ? set.negated : set
    }

    private static let properties: [String: ScalarSet] = {
        typealias C = UnicodeClasses
        let categories: [String: C.Categories] = [
            "l": C.letter, "letter": C.letter, "lu": C.uppercase, "ll": C.lowercase, "lt": C.titlecase,
            "lm": C.modifierLetter, "lo": C.otherLetter,
            "m": C.mark, "mark": C.mark, "mn": C.nonspacingMark, "mc": C.spacingMark, "me": C.enclosingMark,
            "n": C.number, "number": C.number, "nd": C.decimalNumber, "nl": C.letterNumber, "no": C.otherNumber,
            "p": C.punctuation, "punctuation": C.punctuation, "pc": C.connectorPunctuation, "pd": C.dashPunctuation,
            "ps": C.openPunctuation, "pe": C.closePunctuation, "pi": C.initialPunctuation, "pf": C.finalPunctuation,
            "po": C.otherPunctuation,
            "s": C.symbol, "symbol": C.symbol, "sm": C.mathSymbol, "sc": C.currencySymbol, "sk": C.modifierSymbol,
            "so": C.otherSymbol,
            "z": C.separator, "separator": C.separator, "zs": C.spaceSeparator, "zl": C.lineSeparator,
            "zp": C.paragraphSeparator,
            "c": C.other, "other": C.other, "cc": C.control, "cf": C.format, "co": C.privateUse, "cn": C.unassigned,
        ]
        var sets = categories.mapValues { ScalarSet.categories($0) }
        sets["han"] = .han
        sets["space"] = .whitespace
        sets["word"] = .word
        return sets
    }()
}

// MARK: - Brackets

extension PatternParser {
    /// A bracketed set, the opening bracket consumed. A bracket inside is a set of its own, joined to the outer one.
    private mutating func set() throws(PatternSyntaxError) -> ScalarSet {
        depth += 1
        defer { depth -= 1 }
        guard depth <= 64 else { throw PatternSyntaxError(syntax: "brackets nested more than 64 deep") }
        var union = ScalarSet()
        let isNegated = consume("^")
        var isFirst = true
        while let scalar = next, scalar != "]" || isFirst {
            isFirst = false
            if pattern[index...].starts(with: "[:".unicodeScalars) { throw PatternSyntaxError(syntax: "POSIX class '[:'") }
            if pattern[index...].starts(with: "&&".unicodeScalars) { throw PatternSyntaxError(syntax: "set intersection '&&'") }
            if consume("[") {
                union.formUnion(try set())
            } else {
                union.formUnion(try member())
            }
        }
        guard consume("]") else { throw PatternSyntaxError(syntax: "unmatched '['") }
        if ignoresCase { union.closeUnderCase() }
        return isNegated ? union.negated : union
    }

    private mutating func member() throws(PatternSyntaxError) -> ScalarSet {
        let first = try single()
        guard let low = first.onlyScalar, next == "-", index + 1 < pattern.count, pattern[index + 1] != "]" else { return first }
        index += 1
        if next == "[" { throw PatternSyntaxError(syntax: "a range that ends in a set") }
        guard let high = try single().onlyScalar, low <= high else {
            throw PatternSyntaxError(syntax: "an empty range in brackets")
        }
        return ScalarSet(range: low...high)
    }

    private mutating func single() throws(PatternSyntaxError) -> ScalarSet {
        guard let scalar = next else { throw PatternSyntaxError(syntax: "unmatched '['") }
        if scalar == "\\" { return try escape() }
        index += 1
        return .scalar(scalar.value)
    }
}

extension ScalarSet {
    /// The scalar of a set that was written as one.
    var onlyScalar: UInt32? {
        guard ranges.count == 1, ranges[0].count == 1, categories == 0, nested.isEmpty, !isNegated, !containsWhitespace,
            !containsWord, !containsHan
        else { return nil }
        return ranges[0].lowerBound
    }
}
