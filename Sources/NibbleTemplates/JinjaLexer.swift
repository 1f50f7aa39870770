struct JinjaToken: Sendable {
    enum Kind: Sendable, Equatable {
        case text, outputBegin, outputEnd, tagBegin, tagEnd, name, string, integer, float, symbol, end
    }

    let kind: Kind
    /// Decoded for strings, digits without `_` for numbers.
    let text: String
    let line: Int

    var description: String {
        switch kind {
        case .text: "template text"
        case .outputBegin: "'{{'"
        case .outputEnd: "'}}'"
        case .tagBegin: "'{%'"
        case .tagEnd: "'%}'"
        case .end: "the end of the template"
        case .string: "the string '\(text)'"
        default: "'\(text)'"
        }
    }
}

/// Cuts a template into tokens, with the settings chat templates are written for: `trim_blocks` and `lstrip_blocks` on, one
/// trailing newline dropped, `-` and `+` beside the delimiters.
struct JinjaLexer {
    private let source: [Unicode.Scalar]
    private var position = 0
    private var line = 1
    private var tokens: [JinjaToken] = []
    /// Whether the current position is at the start of a line.
    private var atLineStart = true

    private init(_ text: String) {
        var scalars: [Unicode.Scalar] = []
        for scalar in text.unicodeScalars {
            if scalar == "\n", scalars.last == "\r" { scalars.removeLast() }
            scalars.append(scalar)
        }
        for index in scalars.indices where scalars[index] == "\r" { scalars[index] = "\n" }
        if scalars.last == "\n" { scalars.removeLast() }
        source = scalars
    }

    /// - Throws: `syntax`.
    static func tokens(of text: String) throws -> [JinjaToken] {
        var lexer = JinjaLexer(text)
        while lexer.position < lexer.source.count { try lexer.readText() }
        lexer.emit(.end, "", line: lexer.line)
        return lexer.tokens
    }

    // MARK: Text and delimiters

    private mutating func readText() throws {
        let start = position
        var end = start
        while end < source.count, !isDelimiter(at: end) { end += 1 }
        guard end < source.count else {
            emit(.text, PythonText.text(source[start...]), line: line)
            return advance(to: end)
        }
        if let content = rawContent(at: end) {
            emitText(start..<end, before: sign(at: end + 2), isOutput: false)
            return try readRaw(from: content)
        }
        let delimiter = source[end + 1]
        emitText(start..<end, before: sign(at: end + 2), isOutput: delimiter == "{")
        advance(to: end + 2 + (sign(at: end + 2) == nil ? 0 : 1))
        switch delimiter {
        case "#": try skipComment()
        case "{": try readCode(.outputBegin, .outputEnd, closing: "}")
        default: try readCode(.tagBegin, .tagEnd, closing: "%")
        }
    }

    private func isDelimiter(at index: Int) -> Bool {
        guard source[index] == "{", index + 1 < source.count else { return false }
        return source[index + 1] == "{" || source[index + 1] == "%" || source[index + 1] == "#"
    }

    private func sign(at index: Int) -> Unicode.Scalar? {
        guard index < source.count, source[index] == "-" || source[index] == "+" else { return nil }
        return source[index]
    }

    /// Emits the text before a delimiter. `-` strips white space at its end, and a tag at the start of a line strips its indentation.
    private mutating func emitText(_ range: Range<Int>, before sign: Unicode.Scalar?, isOutput: Bool) {
        var text = source[range]
        if sign == "-" {
            while let last = text.last, PythonText.isSpace(last) { text.removeLast() }
        } else if sign != "+", !isOutput {
            let lineStart = text.lastIndex(of: "\n").map { $0 + 1 } ?? text.startIndex
            let startsLine = lineStart > text.startIndex || atLineStart
            if startsLine, text[lineStart...].allSatisfy(PythonText.isSpace) { text = text[..<lineStart] }
        }
        if !text.isEmpty { emit(.text, PythonText.text(text), line: line) }
        advance(to: range.upperBound)
    }

    private mutating func emit(_ kind: JinjaToken.Kind, _ text: String, line: Int) {
        tokens.append(JinjaToken(kind: kind, text: text, line: line))
    }

    private mutating func advance(to index: Int) {
        line += source[position..<index].count { $0 == "\n" }
        if index > position { atLineStart = source[index - 1] == "\n" }
        position = index
    }

    private func skippingSpaces(from index: Int) -> Int {
        var index = index
        while index < source.count, PythonText.isSpace(source[index]) { index += 1 }
        return index
    }

    private func matches(_ text: String, at index: Int) -> Bool {
        var place = index
        for scalar in text.unicodeScalars {
            guard place < source.count, source[place] == scalar else { return false }
            place += 1
        }
        return true
    }

    /// The end of the closing delimiter at `index`, with its sign and the white space that it strips; nil if there is none.
    private func closing(_ delimiter: String, at index: Int, signs: Bool = true, trims: Bool = true) -> Int? {
        if matches("-" + delimiter, at: index) { return skippingSpaces(from: index + 3) }
        if signs, matches("+" + delimiter, at: index) { return index + 3 }
        guard matches(delimiter, at: index) else { return nil }
        return index + (trims && index + 2 < source.count && source[index + 2] == "\n" ? 3 : 2)
    }

    private mutating func skipComment() throws {
        let start = line
        for index in position..<source.count {
            if let end = closing("#}", at: index) { return advance(to: end) }
        }
        throw JinjaError(.syntax(expected: "'#}'", found: "the end of the template"), line: start)
    }

    // MARK: Raw blocks

    /// Where the content of a `{% raw %}` at `index` starts.
    private func rawContent(at index: Int) -> Int? {
        guard matches("{%", at: index) else { return nil }
        var place = skippingSpaces(from: index + 2 + (sign(at: index + 2) == nil ? 0 : 1))
        guard matches("raw", at: place) else { return nil }
        place = skippingSpaces(from: place + 3)
        return closing("%}", at: place, signs: false, trims: false)
    }

    private mutating func readRaw(from content: Int) throws {
        let start = line
        advance(to: content)
        for index in content..<source.count where matches("{%", at: index) {
            let mark = sign(at: index + 2)
            var place = skippingSpaces(from: index + 2 + (mark == nil ? 0 : 1))
            guard matches("endraw", at: place) else { continue }
            place = skippingSpaces(from: place + 6)
            guard let end = closing("%}", at: place) else { continue }
            emitText(content..<index, before: mark, isOutput: false)
            return advance(to: end)
        }
        throw JinjaError(.syntax(expected: "'{% endraw %}'", found: "the end of the template"), line: start)
    }

    // MARK: Code

    private mutating func readCode(_ begin: JinjaToken.Kind, _ end: JinjaToken.Kind, closing mark: Unicode.Scalar) throws {
        let start = line
        let isOutput = begin == .outputBegin
        var brackets: [Unicode.Scalar] = []
        emit(begin, "", line: line)
        while position < source.count {
            if brackets.isEmpty, let after = closing("\(mark)}", at: position, signs: !isOutput, trims: !isOutput) {
                emit(end, "", line: line)
                return advance(to: after)
            }
            try readToken(&brackets)
        }
        throw JinjaError(.syntax(expected: isOutput ? "'}}'" : "'%}'", found: "the end of the template"), line: start)
    }

    private mutating func readToken(_ brackets: inout [Unicode.Scalar]) throws {
        let scalar = source[position]
        if PythonText.isSpace(scalar) {
            advance(to: skippingSpaces(from: position))
        } else if scalar == "'" || scalar == "\"" {
            try readString(quote: scalar)
        } else if isDigit(position) {
            readNumber()
        } else if isNamePart(scalar) {
            readName()
        } else {
            try readSymbol(&brackets)
        }
    }

    private func isNamePart(_ scalar: Unicode.Scalar) -> Bool {
        scalar == "_" || (scalar.value < 128 ? isASCIIAlphanumeric(scalar) : scalar.properties.isXIDContinue)
    }

    private func isASCIIAlphanumeric(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar {
        case "a"..."z", "A"..."Z", "0"..."9": true
        default: false
        }
    }

    private mutating func readName() {
        var end = position
        while end < source.count, isNamePart(source[end]) { end += 1 }
        emit(.name, PythonText.text(source[position..<end]), line: line)
        advance(to: end)
    }

    private static let pairs = ["//", "**", "==", "!=", ">=", "<="]

    private mutating func readSymbol(_ brackets: inout [Unicode.Scalar]) throws {
        let scalar = source[position]
        for symbol in Self.pairs where matches(symbol, at: position) {
            emit(.symbol, symbol, line: line)
            return advance(to: position + 2)
        }
        guard "+-/*%~[](){}><=.:|,;".unicodeScalars.contains(scalar) else {
            throw JinjaError(.syntax(expected: "an expression", found: "the character '\(scalar)'"), line: line)
        }
        switch scalar {
        case "(": brackets.append(")")
        case "[": brackets.append("]")
        case "{": brackets.append("}")
        case ")", "]", "}":
            guard let wanted = brackets.popLast(), wanted == scalar else {
                throw JinjaError(.syntax(expected: "balanced brackets", found: "'\(scalar)'"), line: line)
            }
        default: break
        }
        emit(.symbol, String(scalar), line: line)
        advance(to: position + 1)
    }
}

// MARK: - Numbers and strings

extension JinjaLexer {
    private func isDigit(_ index: Int) -> Bool {
        index < source.count && source[index].value >= 48 && source[index].value <= 57
    }

    /// The end of `digit (_? digit)*` from `index`.
    private func digitsEnd(from index: Int, where accept: (Unicode.Scalar) -> Bool) -> Int {
        var end = index
        while end < source.count {
            if accept(source[end]) {
                end += 1
            } else if source[end] == "_", end > index, end + 1 < source.count, accept(source[end + 1]) {
                end += 2
            } else {
                break
            }
        }
        return end
    }

    private mutating func readNumber() {
        let decimal = { (scalar: Unicode.Scalar) in scalar.value >= 48 && scalar.value <= 57 }
        if let end = floatEnd(decimal) { return emitNumber(.float, end) }
        if source[position] == "0" {
            let prefixes: [(Unicode.Scalar, ClosedRange<UInt32>, Bool)] = [
                ("b", 48...49, false), ("o", 48...55, false), ("x", 48...57, true),
            ]
            for (letter, digits, isHex) in prefixes
            where position + 1 < source.count && source[position + 1].properties.lowercaseMapping.unicodeScalars.first == letter {
                let end = digitsEnd(from: position + 2) { digits.contains($0.value) || (isHex && $0.properties.isASCIIHexDigit) }
                if end > position + 2 { return emitNumber(.integer, end) }
            }
            return emitNumber(.integer, digitsEnd(from: position) { $0 == "0" })
        }
        emitNumber(.integer, digitsEnd(from: position, where: decimal))
    }

    /// The end of a number with a fraction or an exponent; after a dot (`list.0.1`) there are only integers.
    private func floatEnd(_ decimal: (Unicode.Scalar) -> Bool) -> Int? {
        guard position == 0 || source[position - 1] != "." else { return nil }
        let whole = digitsEnd(from: position, where: decimal)
        var end = whole
        if end < source.count, source[end] == ".", isDigit(end + 1) { end = digitsEnd(from: end + 1, where: decimal) }
        if end < source.count, source[end] == "e" || source[end] == "E" {
            let digits = sign(at: end + 1) == nil ? end + 1 : end + 2
            if isDigit(digits) { return digitsEnd(from: digits, where: decimal) }
        }
        return end > whole ? end : nil
    }

    private mutating func emitNumber(_ kind: JinjaToken.Kind, _ end: Int) {
        emit(kind, PythonText.text(source[position..<end].filter { $0 != "_" }), line: line)
        advance(to: end)
    }

    private mutating func readString(quote: Unicode.Scalar) throws {
        let start = line
        var result: [Unicode.Scalar] = []
        var index = position + 1
        while index < source.count {
            let scalar = source[index]
            if scalar == quote {
                emit(.string, PythonText.text(result), line: start)
                return advance(to: index + 1)
            }
            index += 1
            if scalar == "\\", index < source.count {
                try readEscape(&index, into: &result)
            } else {
                result.append(scalar)
            }
        }
        throw JinjaError(.syntax(expected: "the closing \(quote) of a string", found: "the end of the template"), line: start)
    }

    /// Python's escapes. An unknown escape is kept as it is, with its backslash.
    private func readEscape(_ index: inout Int, into result: inout [Unicode.Scalar]) throws {
        let plain: [Unicode.Scalar: Unicode.Scalar] = [
            "n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", "\"": "\"", "a": "\u{7}", "b": "\u{8}", "f": "\u{C}",
            "v": "\u{B}",
        ]
        let letter = source[index]
        index += 1
        if let scalar = plain[letter] { return result.append(scalar) }
        switch letter {
        case "\n": break
        case "x": result.append(try scalar(try hex(2, &index), &index))
        case "u": result.append(try scalar(try hex(4, &index), &index))
        case "U": result.append(try scalar(try hex(8, &index), &index))
        case "0"..."7":
            var value = letter.value - 48
            for _ in 0..<2 where index < source.count && (48...55).contains(source[index].value) {
                value = value * 8 + source[index].value - 48
                index += 1
            }
            result.append(try scalar(value, &index))
        default: result += ["\\", letter]
        }
    }

    private func hex(_ digits: Int, _ index: inout Int) throws -> UInt32 {
        let text = PythonText.text(source[index..<min(index + digits, source.count)])
        guard text.unicodeScalars.count == digits, text.allSatisfy(\.isHexDigit), let value = UInt32(text, radix: 16) else {
            throw JinjaError(.syntax(expected: "\(digits) hexadecimal digits in an escape", found: "'\(text)'"), line: line)
        }
        index += digits
        return value
    }

    /// The scalar of a code, joining a surrogate pair that is written as two escapes.
    private func scalar(_ code: UInt32, _ index: inout Int) throws -> Unicode.Scalar {
        var code = code
        if (0xD800..<0xDC00).contains(code), matches("\\u", at: index) {
            index += 2
            let low = try hex(4, &index)
            if (0xDC00..<0xE000).contains(low) { code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00) }
        }
        guard let scalar = Unicode.Scalar(code) else {
            throw JinjaError(.syntax(expected: "a character in an escape", found: "the code \(code)"), line: line)
        }
        return scalar
    }
}
