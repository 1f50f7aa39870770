/// The syntax tree of a regular expression over characters.
indirect enum RegexNode {
    case set(ScalarRanges)
    case sequence([RegexNode])
    case alternatives([RegexNode])
    case repetition(RegexNode, minimum: Int, maximum: Int?)
    case lookAhead(RegexNode, isNegative: Bool)
    case start
    case end
}

/// Parses the regular expressions of ECMA 262 with the `u` flag, which are those of JSON Schema, but for back references, word
/// boundaries and look-behind. Lazy repetitions are taken as greedy ones: the same texts match.
struct RegexParser {
    private static let maximumLength = 10_000
    private static let maximumRepetition = 10_000

    private let text: String
    private let scalars: [Unicode.Scalar]
    private var index = 0
    private var depth = 0

    static func parse(_ text: String) throws(GrammarError) -> RegexNode {
        var parser = RegexParser(text)
        guard parser.scalars.count <= maximumLength else { throw parser.error("it is longer than \(maximumLength) characters") }
        let node = try parser.alternatives()
        guard parser.index == parser.scalars.count else { throw parser.error("unmatched ')'") }
        return node
    }

    private init(_ text: String) {
        self.text = text
        scalars = Array(text.unicodeScalars)
    }

    private func error(_ problem: String) -> GrammarError { .pattern(text, problem: problem) }

    private var next: Unicode.Scalar? { index < scalars.count ? scalars[index] : nil }

    private mutating func consume(_ prefix: String) -> Bool {
        guard scalars[index...].starts(with: prefix.unicodeScalars) else { return false }
        index += prefix.unicodeScalars.count
        return true
    }

    private mutating func alternatives() throws(GrammarError) -> RegexNode {
        depth += 1
        defer { depth -= 1 }
        guard depth <= 50 else { throw error("groups are nested more than 50 deep") }
        var branches = [try sequence()]
        while consume("|") { branches.append(try sequence()) }
        return branches.count == 1 ? branches[0] : .alternatives(branches)
    }

    private mutating func sequence() throws(GrammarError) -> RegexNode {
        var parts: [RegexNode] = []
        while let scalar = next, scalar != "|", scalar != ")" { parts.append(try repeated(try atom())) }
        return parts.count == 1 ? parts[0] : .sequence(parts)
    }

    // MARK: Repetitions

    private mutating func repeated(_ atom: RegexNode) throws(GrammarError) -> RegexNode {
        guard let bounds = try bounds() else { return atom }
        switch atom {
        case .start, .end, .lookAhead: throw error("a repetition of something without width")
        default: break
        }
        _ = consume("?")
        if let scalar = next, "*+?".unicodeScalars.contains(scalar) { throw error("two repetitions of one thing") }
        return .repetition(atom, minimum: bounds.minimum, maximum: bounds.maximum)
    }

    private mutating func bounds() throws(GrammarError) -> (minimum: Int, maximum: Int?)? {
        if consume("*") { return (0, nil) }
        if consume("+") { return (1, nil) }
        if consume("?") { return (0, 1) }
        guard next == "{" else { return nil }
        let start = index
        index += 1
        guard let minimum = try number() else {
            index = start
            return nil
        }
        var maximum: Int? = minimum
        if consume(",") { maximum = try number() }
        guard consume("}") else { throw error("'{' without its '}'") }
        if let maximum, maximum < minimum { throw error("a repetition {\(minimum),\(maximum)}") }
        return (minimum, maximum)
    }

    private mutating func number() throws(GrammarError) -> Int? {
        var value: Int?
        while let scalar = next, ("0"..."9").contains(scalar) {
            value = (value ?? 0) * 10 + Int(scalar.value - 0x30)
            guard let value, value <= Self.maximumRepetition else {
                throw error("a repetition of more than \(Self.maximumRepetition)")
            }
            index += 1
        }
        return value
    }

    // MARK: Atoms

    private mutating func atom() throws(GrammarError) -> RegexNode {
        guard let scalar = next else { throw error("it ends too early") }
        index += 1
        switch scalar {
        case "(": return try group()
        case "[": return .set(try bracket())
        case ".": return .set(ScalarRanges([0x0A...0x0A, 0x0D...0x0D, 0x2028...0x2029]).complement)
        case "^": return .start
        case "$": return .end
        case "\\": return .set(try escape(inBracket: false))
        case "*", "+", "?": throw error("'\(scalar)' without anything to repeat")
        default: return .set(ScalarRanges(scalar))
        }
    }

    private mutating func group() throws(GrammarError) -> RegexNode {
        var lookAhead: Bool?
        if consume("?:") {
        } else if consume("?=") {
            lookAhead = false
        } else if consume("?!") {
            lookAhead = true
        } else if consume("?<") {
            guard let scalar = next, scalar != "=", scalar != "!" else { throw error("look-behind") }
            while let scalar = next, scalar != ">" { index += scalar == ")" ? scalars.count : 1 }
            guard consume(">") else { throw error("a group's name without its '>'") }
        } else if next == "?" {
            throw error("the group '(?\(index + 1 < scalars.count ? String(scalars[index + 1]) : "")'")
        }
        let body = try alternatives()
        guard consume(")") else { throw error("unmatched '('") }
        return lookAhead.map { .lookAhead(body, isNegative: $0) } ?? body
    }

    private mutating func bracket() throws(GrammarError) -> ScalarRanges {
        let isNegated = consume("^")
        var ranges: [ClosedRange<UInt32>] = []
        while let scalar = next, scalar != "]" {
            let first = try member()
            guard let low = first.only, next == "-", index + 1 < scalars.count, scalars[index + 1] != "]" else {
                ranges += first.ranges
                continue
            }
            index += 1
            guard let high = try member().only, low <= high else { throw error("an empty range in brackets") }
            ranges.append(low...high)
        }
        guard consume("]") else { throw error("unmatched '['") }
        let set = ScalarRanges(ranges)
        return isNegated ? set.complement : set
    }

    private mutating func member() throws(GrammarError) -> ScalarRanges {
        guard let scalar = next else { throw error("unmatched '['") }
        index += 1
        return scalar == "\\" ? try escape(inBracket: true) : ScalarRanges(scalar)
    }

    private mutating func escape(inBracket: Bool) throws(GrammarError) -> ScalarRanges {
        guard let letter = next else { throw error("a backslash at the end") }
        index += 1
        switch letter {
        case "n": return ScalarRanges("\n")
        case "r": return ScalarRanges("\r")
        case "t": return ScalarRanges("\t")
        case "f": return ScalarRanges("\u{0C}")
        case "v": return ScalarRanges("\u{0B}")
        case "0": return ScalarRanges("\0")
        case "b" where inBracket: return ScalarRanges("\u{08}")
        case "d": return CharacterClasses.digit
        case "D": return CharacterClasses.digit.complement
        case "w": return CharacterClasses.word
        case "W": return CharacterClasses.word.complement
        case "s": return CharacterClasses.space
        case "S": return CharacterClasses.space.complement
        case "p": return try property()
        case "P": return try property().complement
        case "u", "x": return ScalarRanges(try codePoint(letter))
        case "c":
            guard let control = next, control.isASCII, control.properties.isAlphabetic else { throw error("the escape '\\c'") }
            index += 1
            return ScalarRanges([control.value & 31...control.value & 31])
        case "b", "B": throw error("word boundaries")
        case "k", "1"..."9": throw error("back references")
        default:
            guard !letter.properties.isAlphabetic else { throw error("the escape '\\\(letter)'") }
            return ScalarRanges(letter)
        }
    }

    private mutating func codePoint(_ letter: Unicode.Scalar) throws(GrammarError) -> Unicode.Scalar {
        var value = try hexadecimal(letter)
        // A surrogate pair is one character.
        if (0xD800...0xDBFF).contains(value), consume("\\u") {
            let low = try hexadecimal(letter)
            guard (0xDC00...0xDFFF).contains(low) else { throw error("half a surrogate pair") }
            value = 0x10000 + (value - 0xD800) << 10 + (low - 0xDC00)
        }
        guard let scalar = Unicode.Scalar(value) else { throw error("half a surrogate pair") }
        return scalar
    }

    private mutating func hexadecimal(_ letter: Unicode.Scalar) throws(GrammarError) -> UInt32 {
        var digits = ""
        if letter == "u", consume("{") {
            while let scalar = next, scalar != "}", digits.count < 8 {
                digits.unicodeScalars.append(scalar)
                index += 1
            }
            guard consume("}") else { throw error("'\\u{' without its '}'") }
        } else {
            let end = min(index + (letter == "u" ? 4 : 2), scalars.count)
            digits = String(String.UnicodeScalarView(scalars[index..<end]))
            index = end
        }
        guard let value = UInt32(digits, radix: 16), !digits.hasPrefix("+") else {
            throw error("the escape '\\\(letter)\(digits)'")
        }
        return value
    }

    private mutating func property() throws(GrammarError) -> ScalarRanges {
        guard consume("{"), let close = scalars[index...].firstIndex(of: "}") else {
            throw error("'\\p' without a name in braces")
        }
        let name = String(String.UnicodeScalarView(scalars[index..<close]))
        index = close + 1
        guard let set = CharacterClasses.property(name) else { throw error("the property '\\p{\(name)}'") }
        return set
    }
}
