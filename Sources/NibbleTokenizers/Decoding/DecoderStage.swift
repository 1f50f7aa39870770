/// One step of a streaming decoder: takes one token at a time and returns text as soon as it is final.
enum DecoderStage: Sendable {
    case byteLevel(IncompleteUTF8)
    case metaspace(replacement: [UInt8], keepsThis: Bool)
    case replace(TextPattern, content: [UInt8])
    case byteFallback(IncompleteUTF8)
    /// Per token, before `Fuse`.
    case strip(content: [UInt8], start: Int, stop: Int)
    /// On the whole text: `start` copies are still to be removed, `held` may have to be removed at the end.
    case stripText(content: [UInt8], start: Int, stop: Int, held: [UInt8])
    case pieces(PieceText)
    /// Tokens joined with spaces.
    case join(isFirst: Bool)

    /// The steps of a decoder.
    static func stages(of decoder: Decoder?) -> [DecoderStage] {
        guard let decoder else { return [.join(isFirst: true)] }
        var stages: [DecoderStage] = []
        var isFused = false
        append(decoder, &isFused, to: &stages)
        return stages
    }

    private static func append(_ decoder: Decoder, _ isFused: inout Bool, to stages: inout [DecoderStage]) {
        switch decoder {
        case .sequence(let parts): for part in parts { append(part, &isFused, to: &stages) }
        case .byteLevel: stages.append(.byteLevel(IncompleteUTF8()))
        case .metaspace(let replacement, let keepsFirst):
            stages.append(.metaspace(replacement: replacement, keepsThis: keepsFirst))
        case .replace(let pattern, let content): stages.append(.replace(pattern, content: content))
        case .byteFallback: stages.append(.byteFallback(IncompleteUTF8()))
        case .fuse: isFused = true
        case .strip(let content, let start, let stop) where isFused:
            stages.append(.stripText(content: content, start: start, stop: stop, held: []))
        case .strip(let content, let start, let stop): stages.append(.strip(content: content, start: start, stop: stop))
        case .pieces(let text): stages.append(.pieces(text))
        }
    }

    mutating func push(_ token: [UInt8]) -> [[UInt8]] {
        switch self {
        case .byteLevel(var text):
            let settled = text.push(ByteLevelAlphabet.decode(token) ?? token)
            self = .byteLevel(text)
            return settled.isEmpty ? [] : [settled]
        case .metaspace(let replacement, let keepsThis):
            self = .metaspace(replacement: replacement, keepsThis: true)
            return [Decoder.replace(replacement, in: token, by: keepsThis ? [0x20] : [])]
        case .replace(let pattern, let content):
            return [Decoder.replace(pattern.matches(in: token), in: token, by: content)]
        case .byteFallback(var text):
            defer { self = .byteFallback(text) }
            if let byte = ByteToken.byte(token) {
                let settled = text.push([byte])
                return settled.isEmpty ? [] : [settled]
            }
            return text.finish(perByte: true).map { [$0, token] } ?? [token]
        case .strip: return stripToken(token)
        case .stripText: return stripText(token)
        case .pieces(var text):
            defer { self = .pieces(text) }
            return [text.push(token)]
        case .join(let isFirst):
            self = .join(isFirst: false)
            return [isFirst ? token : [0x20] + token]
        }
    }

    mutating func finish() -> [[UInt8]] {
        switch self {
        case .byteLevel(var text):
            defer { self = .byteLevel(text) }
            return text.finish(perByte: false).map { [$0] } ?? []
        case .byteFallback(var text):
            defer { self = .byteFallback(text) }
            return text.finish(perByte: true).map { [$0] } ?? []
        case .stripText(let content, let start, let stop, let held):
            self = .stripText(content: content, start: start, stop: stop, held: [])
            return Decoder.strip(content: content, start: 0, stop: stop).decode([held])
        case .metaspace, .replace, .strip, .pieces, .join: return []
        }
    }

    private func stripToken(_ token: [UInt8]) -> [[UInt8]] {
        guard case .strip(let content, let start, let stop) = self else { return [token] }
        return Decoder.strip(content: content, start: start, stop: stop).decode([token])
    }

    private mutating func stripText(_ token: [UInt8]) -> [[UInt8]] {
        guard case .stripText(let content, var start, let stop, let held) = self, !content.isEmpty else { return [token] }
        var text = (held + token)[...]
        while start > 0, !text.isEmpty {
            guard text.starts(with: content) else {
                start = 0
                break
            }
            text = text.dropFirst(content.count)
            start -= 1
        }
        var end = text.endIndex
        var copies = 0
        while copies < stop, text[..<end].suffix(content.count).elementsEqual(content), end > text.startIndex {
            end -= content.count
            copies += 1
        }
        self = .stripText(content: content, start: start, stop: stop, held: Array(text[end...]))
        return [Array(text[..<end])]
    }
}

/// UTF-8 that arrives in pieces. Returns complete characters and keeps the start of an incomplete one.
struct IncompleteUTF8: Sendable {
    private var pending: [UInt8] = []

    /// The text that `bytes` complete, bad bytes replaced by U+FFFD.
    mutating func push(_ bytes: [UInt8]) -> [UInt8] {
        pending += bytes
        let kept = Self.incompleteTail(pending)
        let settled = Array(pending.dropLast(kept))
        pending = Array(pending.suffix(kept))
        return Decoder.repaired(settled)
    }

    /// The incomplete rest, as one U+FFFD or as one for each byte.
    mutating func finish(perByte: Bool) -> [UInt8]? {
        guard !pending.isEmpty else { return nil }
        let count = perByte ? pending.count : 1
        pending = []
        return Array(repeatElement(Decoder.replacementCharacter, count: count).joined())
    }

    /// The length of the incomplete character at the end.
    private static func incompleteTail(_ bytes: [UInt8]) -> Int {
        for length in 1...3 where length <= bytes.count {
            let lead = bytes[bytes.count - length]
            if lead & 0xC0 == 0x80 { continue }
            guard lead >= 0xC2, lead <= 0xF4, UTF8Text.length(ofLead: lead) > length else { return 0 }
            if length == 1 { return 1 }
            return isSecond(bytes[bytes.count - length + 1], after: lead) ? length : 0
        }
        return 0
    }

    private static func isSecond(_ byte: UInt8, after lead: UInt8) -> Bool {
        switch lead {
        case 0xE0: byte >= 0xA0
        case 0xED: byte < 0xA0
        case 0xF0: byte >= 0x90
        case 0xF4: byte < 0x90
        default: true
        }
    }
}
