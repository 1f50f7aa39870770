import NibbleCore

extension PreTokenizer {
    init(_ field: JSONField) throws {
        let type = try field.required("type")
        switch try type.string() {
        case "Sequence":
            var parts: [PreTokenizer] = []
            for element in try field.required("pretokenizers").elements() { parts.append(try PreTokenizer(element)) }
            self = .sequence(parts)
        case "Split":
            self = .split(
                try TextPattern(field.required("pattern")), try Self.behavior(field, default: nil),
                isInverted: try field.flag("invert", default: false))
        case "ByteLevel":
            self = .byteLevel(
                addsPrefixSpace: try field.flag("add_prefix_space", default: true),
                splits: try field.flag("use_regex", default: true))
        case "Metaspace":
            let metaspace = try Metaspace(field)
            self = .metaspace(replacement: metaspace.replacement, metaspace.scheme, splits: metaspace.splits)
        case "Digits": self = .digits(individual: try field.flag("individual_digits", default: false))
        case "Whitespace": self = .whitespace
        case "WhitespaceSplit": self = .whitespaceSplit
        case "Punctuation": self = .punctuation(try Self.behavior(field, default: .isolated))
        case let other: throw type.unsupported(other)
        }
    }

    private static func behavior(_ field: JSONField, default fallback: Behavior?) throws -> Behavior {
        if let fallback, field.child("behavior") == nil { return fallback }
        let name = try field.required("behavior")
        guard let behavior = Behavior(rawValue: try name.string()) else { throw name.unsupported(try name.string()) }
        return behavior
    }
}

/// The fields that the Metaspace pre-tokenizer and decoder share, older spellings included.
struct Metaspace {
    var replacement: UInt32
    var scheme: PreTokenizer.PrependScheme
    var splits: Bool

    init(_ field: JSONField) throws {
        let mark = try field.child("replacement")?.string() ?? "\u{2581}"
        guard let scalar = mark.unicodeScalars.first, mark.unicodeScalars.count == 1 else {
            throw try field.required("replacement").unexpected("one character")
        }
        replacement = scalar.value
        splits = try field.flag("split", default: true)
        if let name = field.child("prepend_scheme") {
            guard let scheme = PreTokenizer.PrependScheme(rawValue: try name.string()) else {
                throw name.unsupported(try name.string())
            }
            self.scheme = scheme
        } else {
            scheme = try field.flag("add_prefix_space", default: true) ? .always : .never
        }
    }
}
