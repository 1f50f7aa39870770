/// Rewrites text before it is cut into words.
indirect enum Normalizer: Sendable {
    case sequence([Normalizer])
    case unicode(UnicodeNormalization.Form)
    case lowercase
    case strip(left: Bool, right: Bool)
    case prepend([UInt32])
    case replace(TextPattern, content: [UInt8])
    case precompiled(PrecompiledCharsMap)
    /// SentencePiece's own white-space rules: runs of spaces become one, none at either end.
    case removeExtraSpaces

    func normalize(_ text: inout AlignedText) {
        switch self {
        case .sequence(let normalizers):
            for normalizer in normalizers { normalizer.normalize(&text) }
        case .unicode(let form):
            if let changes = UnicodeNormalization.shared.changes(text.bytes, form) {
                text.replace(0..<text.bytes.count, with: changes)
            }
        case .lowercase: Self.lowercase(&text)
        case .strip(let left, let right): Self.strip(&text, left, right)
        case .prepend(let scalars): text.prepend(scalars)
        case .replace(let pattern, let content): text.replace(pattern.matches(in: text.bytes), by: content)
        case .precompiled(let map):
            if let changes = map.changes(text.bytes) { text.replace(0..<text.bytes.count, with: changes) }
        case .removeExtraSpaces: Self.removeExtraSpaces(&text)
        }
    }

    private static func lowercase(_ text: inout AlignedText) {
        var changes: [AlignedText.Change] = []
        changes.reserveCapacity(text.bytes.count)
        for scalar in String(decoding: text.bytes, as: UTF8.self).unicodeScalars {
            for (index, lower) in scalar.properties.lowercaseMapping.unicodeScalars.enumerated() {
                changes.append(.init(scalar: lower.value, change: index == 0 ? 0 : 1))
            }
        }
        text.replace(0..<text.bytes.count, with: changes)
    }

    private static func strip(_ text: inout AlignedText, _ left: Bool, _ right: Bool) {
        var start = 0
        var end = text.bytes.count
        while left, start < end {
            let (scalar, length) = UTF8Text.scalar(in: text.bytes, at: start)
            guard UnicodeClasses.isWhitespace(scalar) else { break }
            start += length
        }
        while right, end > start {
            let (scalar, length) = UTF8Text.scalar(in: text.bytes, before: end)
            guard UnicodeClasses.isWhitespace(scalar) else { break }
            end -= length
        }
        guard start > 0 || end < text.bytes.count else { return }
        text = text[start..<end]
    }

    private static func removeExtraSpaces(_ text: inout AlignedText) {
        var kept: [Int] = []
        kept.reserveCapacity(text.bytes.count)
        var afterSpace = true
        for (index, byte) in text.bytes.enumerated() {
            if byte != 0x20 || !afterSpace { kept.append(index) }
            afterSpace = byte == 0x20
        }
        if let last = kept.last, text.bytes[last] == 0x20 { kept.removeLast() }
        guard kept.count < text.bytes.count else { return }
        text.spans = text.spans.map { spans in kept.map { spans[$0] } }
        text.bytes = kept.map { text.bytes[$0] }
    }
}
