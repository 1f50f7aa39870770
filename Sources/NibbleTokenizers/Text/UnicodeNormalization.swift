/// The four Unicode normalization forms (UAX #15), with the bookkeeping that offsets need.
///
/// The standard library normalizes strings but does not say which scalar came from where.
struct UnicodeNormalization: Sendable {
    enum Form: String {
        case nfc = "NFC"
        case nfd = "NFD"
        case nfkc = "NFKC"
        case nfkd = "NFKD"
    }

    static let shared = UnicodeNormalization()

    private var canonical: [UInt32: [UInt32]] = [:]
    private var compatibility: [UInt32: [UInt32]] = [:]
    /// (first << 32 | second) → composite.
    private var composites: [UInt64: UInt32] = [:]
    /// One byte a scalar below 0x30000: bit 0 may change under composition, bit 1 under canonical, bit 2 under compatibility decomposition.
    private var touched = [UInt8](repeating: 0, count: 0x30000)

    private init() {
        for entry in Self.entries(UnicodeDecompositionData.canonical) {
            canonical[entry.scalar] = entry.mapping
            mark(entry.scalar, entry.isExcluded ? 0b111 : 0b110)
            if !entry.isExcluded, entry.mapping.count == 2 {
                composites[Self.key(entry.mapping[0], entry.mapping[1])] = entry.scalar
                mark(entry.mapping[1], 0b001)
            }
        }
        for entry in Self.entries(UnicodeDecompositionData.compatibility) {
            compatibility[entry.scalar] = entry.mapping
            mark(entry.scalar, 0b100)
        }
        for scalar in UInt32(0x300)..<0x1F000 where Self.combiningClass(scalar) != 0 { mark(scalar, 0b111) }
        for scalar in UInt32(0x1161)...0x11C2 { mark(scalar, 0b001) }
        for scalar in UInt32(0xAC00)...0xD7A3 { mark(scalar, 0b110) }
    }

    private mutating func mark(_ scalar: UInt32, _ bits: UInt8) {
        if scalar < 0x30000 { touched[Int(scalar)] |= bits }
    }

    private static func key(_ first: UInt32, _ second: UInt32) -> UInt64 { UInt64(first) << 32 | UInt64(second) }

    static func combiningClass(_ scalar: UInt32) -> UInt8 {
        scalar < 0x300 ? 0 : Unicode.Scalar(scalar)?.properties.canonicalCombiningClass.rawValue ?? 0
    }

    private struct Entry {
        var scalar: UInt32 = 0
        var mapping: [UInt32] = []
        var isExcluded = false
    }

    private static func entries(_ text: StaticString) -> [Entry] {
        var entries: [Entry] = []
        var entry = Entry()
        var value: UInt32 = 0
        for byte in UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount) {
            switch byte {
            case UInt8(ascii: "!"): entry.isExcluded = true
            case UInt8(ascii: ":"):
                entry.scalar = value
                value = 0
            case UInt8(ascii: " "):
                entry.mapping.append(value)
                value = 0
            case UInt8(ascii: ","), UInt8(ascii: "\n"):
                entry.mapping.append(value)
                entries.append(entry)
                entry = Entry()
                value = 0
            default: value = value << 4 | UInt32(byte < 0x3A ? byte - 0x30 : byte - 0x37)
            }
        }
        entry.mapping.append(value)
        entries.append(entry)
        return entries
    }
}

extension UnicodeNormalization {
    /// The normalized text with its alignment, or `nil` if the text is already in the form.
    func changes(_ text: [UInt8], _ form: Form) -> [AlignedText.Change]? {
        guard mayChange(text, form) else { return nil }
        let isCompatible = form == .nfkc || form == .nfkd
        var decomposed = decompose(text, isCompatible: isCompatible)
        order(&decomposed)
        return form == .nfc || form == .nfkc ? compose(decomposed) : decomposed
    }

    private func mayChange(_ text: [UInt8], _ form: Form) -> Bool {
        let mask: UInt8 =
            switch form {
            case .nfc: 0b001
            case .nfd: 0b010
            case .nfkc: 0b101
            case .nfkd: 0b100
            }
        return text.withUnsafeBufferPointer { text in
            var index = 0
            while index < text.count {
                if text[index] < 0x80 {
                    index += 1
                    continue
                }
                let (scalar, length) = UTF8Text.scalar(in: text, at: index)
                index += length
                if scalar < 0x30000, touched[Int(scalar)] & mask != 0 { return true }
            }
            return false
        }
    }

    private func decompose(_ text: [UInt8], isCompatible: Bool) -> [AlignedText.Change] {
        var out: [AlignedText.Change] = []
        out.reserveCapacity(text.count)
        text.withUnsafeBufferPointer { text in
            var index = 0
            while index < text.count {
                let (scalar, length) = UTF8Text.scalar(in: text, at: index)
                index += length
                let start = out.count
                decompose(scalar, isCompatible, into: &out)
                for position in start..<out.count { out[position].change = position == start ? 0 : 1 }
            }
        }
        return out
    }

    private func decompose(_ scalar: UInt32, _ isCompatible: Bool, into out: inout [AlignedText.Change]) {
        if scalar < 0xA0 { return out.append(.init(scalar: scalar, change: 0)) }
        if scalar >= 0xAC00, scalar <= 0xD7A3 {
            let index = scalar - 0xAC00
            out.append(.init(scalar: 0x1100 + index / 588, change: 0))
            out.append(.init(scalar: 0x1161 + index % 588 / 28, change: 0))
            if index % 28 != 0 { out.append(.init(scalar: 0x11A7 + index % 28, change: 0)) }
            return
        }
        guard let mapping = canonical[scalar] ?? (isCompatible ? compatibility[scalar] : nil) else {
            return out.append(.init(scalar: scalar, change: 0))
        }
        for part in mapping { decompose(part, isCompatible, into: &out) }
    }

    /// Canonical ordering: runs of combining marks sorted by class, stable.
    private func order(_ text: inout [AlignedText.Change]) {
        var index = 0
        while index < text.count {
            guard Self.combiningClass(text[index].scalar) != 0 else {
                index += 1
                continue
            }
            let start = index
            while index < text.count, Self.combiningClass(text[index].scalar) != 0 { index += 1 }
            guard index - start > 1 else { continue }
            let run = text[start..<index].enumerated().map { (Self.combiningClass($1.scalar), $0, $1) }
            text.replaceSubrange(start..<index, with: run.sorted { ($0.0, $0.1) < ($1.0, $1.1) }.map(\.2))
        }
    }

    private func compose(_ text: [AlignedText.Change]) -> [AlignedText.Change] {
        var out: [AlignedText.Change] = []
        out.reserveCapacity(text.count)
        /// Where the last starter stands in `out`, and the class of what was last kept after it.
        var starter: Int?
        var lastClass: UInt8?
        for item in text {
            let itemClass = Self.combiningClass(item.scalar)
            if let position = starter, lastClass.map({ $0 < itemClass }) ?? true,
                let composite = composite(out[position].scalar, item.scalar)
            {
                out[position] = .init(scalar: composite, change: out[position].change + item.change - 1)
                continue
            }
            out.append(item)
            if itemClass == 0 {
                starter = out.count - 1
                lastClass = nil
            } else if starter != nil {
                lastClass = itemClass
            }
        }
        return out
    }

    private func composite(_ first: UInt32, _ second: UInt32) -> UInt32? {
        if second < 0x300 { return nil }
        if first >= 0x1100, first <= 0x1112, second >= 0x1161, second <= 0x1175 {
            return 0xAC00 + ((first - 0x1100) * 21 + second - 0x1161) * 28
        }
        if first >= 0xAC00, first <= 0xD7A3, (first - 0xAC00) % 28 == 0, second > 0x11A7, second <= 0x11C2 {
            return first + second - 0x11A7
        }
        return composites[Self.key(first, second)]
    }
}
