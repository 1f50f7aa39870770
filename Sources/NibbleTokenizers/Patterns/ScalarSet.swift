/// A set of scalars as a regular expression writes it: ranges, general categories, classes, nested sets.
struct ScalarSet: Sendable {
    private(set) var ranges: [ClosedRange<UInt32>] = []
    private(set) var categories: UnicodeClasses.Categories = 0
    private(set) var nested: [ScalarSet] = []
    private(set) var containsWhitespace = false
    private(set) var containsWord = false
    private(set) var containsHan = false
    var isNegated = false

    /// Membership of the first 128 scalars, filled by `compiled()`.
    private var ascii: (UInt64, UInt64) = (0, 0)

    init() {}

    static func scalar(_ value: UInt32) -> ScalarSet { ScalarSet(range: value...value) }
    static func categories(_ bits: UnicodeClasses.Categories) -> ScalarSet {
        var set = ScalarSet()
        set.categories = bits
        return set
    }
    static var whitespace: ScalarSet {
        var set = ScalarSet()
        set.containsWhitespace = true
        return set
    }
    static var word: ScalarSet {
        var set = ScalarSet()
        set.containsWord = true
        return set
    }
    static var han: ScalarSet {
        var set = ScalarSet()
        set.containsHan = true
        return set
    }

    init(range: ClosedRange<UInt32>) { ranges = [range] }

    var negated: ScalarSet {
        var set = self
        set.isNegated.toggle()
        return set
    }

    mutating func formUnion(_ other: ScalarSet) {
        if other.isNegated { return nested.append(other) }
        ranges += other.ranges
        categories |= other.categories
        nested += other.nested
        containsWhitespace = containsWhitespace || other.containsWhitespace
        containsWord = containsWord || other.containsWord
        containsHan = containsHan || other.containsHan
    }

    /// Adds the other cases of every scalar listed one by one or in short ranges.
    mutating func closeUnderCase() {
        var added: [ClosedRange<UInt32>] = []
        for range in ranges where range.count <= 256 {
            for value in range { added += Self.caseVariants(value).map { $0...$0 } }
        }
        ranges += added
        for index in nested.indices { nested[index].closeUnderCase() }
    }

    /// All scalars that differ from `value` in case alone.
    private static func caseVariants(_ value: UInt32) -> [UInt32] {
        var variants: [UInt32] = [value]
        var index = 0
        while index < variants.count {
            guard let scalar = Unicode.Scalar(variants[index]) else { break }
            index += 1
            for text in [scalar.properties.lowercaseMapping, scalar.properties.uppercaseMapping] {
                guard text.unicodeScalars.count == 1, let other = text.unicodeScalars.first?.value else { continue }
                if !variants.contains(other) { variants.append(other) }
            }
        }
        // Signs whose lower case is a letter, but which are not the upper case of one.
        for (letter, sign) in [(0x73, 0x17F), (0x6B, 0x212A), (0xE5, 0x212B)] as [(UInt32, UInt32)]
        where variants.contains(letter) {
            variants.append(sign)
        }
        return variants
    }

    /// The set with its table for ASCII and its ranges in order.
    func compiled() -> ScalarSet {
        var set = self
        set.ranges.sort { $0.lowerBound < $1.lowerBound }
        set.nested = nested.map { $0.compiled() }
        for value in UInt32(0)..<64 where set.slowContains(value) { set.ascii.0 |= 1 << UInt64(value) }
        for value in UInt32(64)..<128 where set.slowContains(value) { set.ascii.1 |= 1 << UInt64(value - 64) }
        return set
    }

    @inline(__always)
    func contains(_ scalar: UInt32) -> Bool {
        if scalar < 64 { return ascii.0 >> UInt64(scalar) & 1 != 0 }
        if scalar < 128 { return ascii.1 >> UInt64(scalar - 64) & 1 != 0 }
        return slowContains(scalar)
    }

    private func slowContains(_ scalar: UInt32) -> Bool { holds(scalar) != isNegated }

    private func holds(_ scalar: UInt32) -> Bool {
        if categories != 0, UnicodeClasses.categories(scalar) & categories != 0 { return true }
        if containsWhitespace, UnicodeClasses.isWhitespace(scalar) { return true }
        if containsWord, UnicodeClasses.isWord(scalar) { return true }
        if containsHan, UnicodeClasses.isHan(scalar) { return true }
        if !ranges.isEmpty, inRanges(scalar) { return true }
        for set in nested where set.slowContains(scalar) { return true }
        return false
    }

    private func inRanges(_ scalar: UInt32) -> Bool {
        for range in ranges {
            if scalar < range.lowerBound { return false }
            if scalar <= range.upperBound { return true }
        }
        return false
    }
}
