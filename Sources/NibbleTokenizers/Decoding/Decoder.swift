import NibbleCore

/// Turns token texts back into text.
indirect enum Decoder: Sendable {
    case sequence([Decoder])
    case byteLevel
    /// `keepsFirst`: encoding adds no space at the start, so decoding removes none.
    case metaspace(replacement: [UInt8], keepsFirst: Bool)
    case replace(TextPattern, content: [UInt8])
    case byteFallback
    case fuse
    case strip(content: [UInt8], start: Int, stop: Int)
    case pieces(PieceText)

    static let replacementCharacter: [UInt8] = [0xEF, 0xBF, 0xBD]

    /// The decoded texts of `tokens`, which the caller joins. Tokens and results are valid UTF-8.
    func decode(_ tokens: [[UInt8]]) -> [[UInt8]] {
        switch self {
        case .sequence(let parts): parts.reduce(tokens) { $1.decode($0) }
        case .byteLevel: [Self.repaired(tokens.flatMap { ByteLevelAlphabet.decode($0) ?? $0 })]
        case .metaspace(let replacement, let keepsFirst):
            tokens.enumerated().map { index, token in
                Self.replace(replacement, in: token, by: index == 0 && !keepsFirst ? [] : [0x20])
            }
        case .replace(let pattern, let content): tokens.map { Self.replace(pattern.matches(in: $0), in: $0, by: content) }
        case .byteFallback: Self.joinBytes(tokens)
        case .fuse: [Array(tokens.joined())]
        case .strip(let content, let start, let stop): tokens.map { Self.strip($0, content, start, stop) }
        case .pieces(var text): tokens.map { text.push($0) }
        }
    }

    static func repaired(_ bytes: [UInt8]) -> [UInt8] { Array(String(decoding: bytes, as: UTF8.self).utf8) }

    static func replace(_ matches: [Range<Int>], in token: [UInt8], by content: [UInt8]) -> [UInt8] {
        if matches.isEmpty { return token }
        var out: [UInt8] = []
        var done = 0
        for match in matches {
            out += token[done..<match.lowerBound]
            out += content
            done = match.upperBound
        }
        return out + token[done...]
    }

    static func replace(_ literal: [UInt8], in token: [UInt8], by content: [UInt8]) -> [UInt8] {
        replace(TextPattern.literal(literal).matches(in: token), in: token, by: content)
    }

    private static func joinBytes(_ tokens: [[UInt8]]) -> [[UInt8]] {
        var out: [[UInt8]] = []
        var run: [UInt8] = []
        for token in tokens {
            if let byte = ByteToken.byte(token) {
                run.append(byte)
            } else {
                flush(&run, &out)
                out.append(token)
            }
        }
        flush(&run, &out)
        return out
    }

    private static func flush(_ run: inout [UInt8], _ out: inout [[UInt8]]) {
        guard !run.isEmpty else { return }
        if (try? UTF8Span(validating: run.span)) != nil {
            out.append(run)
        } else {
            out.append(contentsOf: repeatElement(replacementCharacter, count: run.count))
        }
        run = []
    }

    private static func strip(_ token: [UInt8], _ content: [UInt8], _ start: Int, _ stop: Int) -> [UInt8] {
        guard !content.isEmpty else { return token }
        var rest = token[...]
        for _ in 0..<start where rest.starts(with: content) { rest = rest.dropFirst(content.count) }
        for _ in 0..<stop where rest.suffix(content.count).elementsEqual(content) && !rest.isEmpty {
            rest = rest.dropLast(content.count)
        }
        return Array(rest)
    }
}

extension Decoder {
    init(_ field: JSONField) throws {
        let type = try field.required("type")
        switch try type.string() {
        case "Sequence":
            var parts: [Decoder] = []
            for element in try field.required("decoders").elements() { parts.append(try Decoder(element)) }
            self = .sequence(parts)
        case "ByteLevel": self = .byteLevel
        case "Metaspace":
            let metaspace = try Metaspace(field)
            var mark: [UInt8] = []
            UTF8Text.append(metaspace.replacement, to: &mark)
            self = .metaspace(replacement: mark, keepsFirst: metaspace.scheme == .never)
        case "Replace":
            self = .replace(try TextPattern(field.required("pattern")), content: Array(try field.text("content").utf8))
        case "ByteFallback": self = .byteFallback
        case "Fuse": self = .fuse
        case "Strip":
            let limit = 0...Int(Int32.max)
            self = .strip(
                content: Array(try field.text("content").utf8),
                start: try field.required("start").integer(in: limit), stop: try field.required("stop").integer(in: limit))
        case let other: throw type.unsupported(other)
        }
    }
}
