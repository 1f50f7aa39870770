/// General categories of scalars as bits, and the character classes built from them.
enum UnicodeClasses {
    /// One bit a general category, in the order of `Unicode.GeneralCategory`'s cases below.
    typealias Categories = UInt32

    static let uppercase: Categories = 1 << 0
    static let lowercase: Categories = 1 << 1
    static let titlecase: Categories = 1 << 2
    static let modifierLetter: Categories = 1 << 3
    static let otherLetter: Categories = 1 << 4
    static let nonspacingMark: Categories = 1 << 5
    static let spacingMark: Categories = 1 << 6
    static let enclosingMark: Categories = 1 << 7
    static let decimalNumber: Categories = 1 << 8
    static let letterNumber: Categories = 1 << 9
    static let otherNumber: Categories = 1 << 10
    static let connectorPunctuation: Categories = 1 << 11
    static let dashPunctuation: Categories = 1 << 12
    static let openPunctuation: Categories = 1 << 13
    static let closePunctuation: Categories = 1 << 14
    static let initialPunctuation: Categories = 1 << 15
    static let finalPunctuation: Categories = 1 << 16
    static let otherPunctuation: Categories = 1 << 17
    static let mathSymbol: Categories = 1 << 18
    static let currencySymbol: Categories = 1 << 19
    static let modifierSymbol: Categories = 1 << 20
    static let otherSymbol: Categories = 1 << 21
    static let spaceSeparator: Categories = 1 << 22
    static let lineSeparator: Categories = 1 << 23
    static let paragraphSeparator: Categories = 1 << 24
    static let control: Categories = 1 << 25
    static let format: Categories = 1 << 26
    static let surrogate: Categories = 1 << 27
    static let privateUse: Categories = 1 << 28
    static let unassigned: Categories = 1 << 29

    static let letter = uppercase | lowercase | titlecase | modifierLetter | otherLetter
    static let mark = nonspacingMark | spacingMark | enclosingMark
    static let number = decimalNumber | letterNumber | otherNumber
    static let punctuation =
        connectorPunctuation | dashPunctuation | openPunctuation | closePunctuation | initialPunctuation | finalPunctuation
        | otherPunctuation
    static let symbol = mathSymbol | currencySymbol | modifierSymbol | otherSymbol
    static let separator = spaceSeparator | lineSeparator | paragraphSeparator
    static let other = control | format | surrogate | privateUse | unassigned

    /// Category numbers of the scalars below 0x20000, looked up once.
    private static let table: [UInt8] = (UInt32(0)..<0x20000).map { computedCategory($0) }

    @inline(__always)
    static func categories(_ scalar: UInt32) -> Categories {
        1 << (scalar < 0x20000 ? UInt32(table[Int(scalar)]) : UInt32(computedCategory(scalar)))
    }

    private static func computedCategory(_ value: UInt32) -> UInt8 {
        guard let scalar = Unicode.Scalar(value) else { return 27 }
        return switch scalar.properties.generalCategory {
        case .uppercaseLetter: 0
        case .lowercaseLetter: 1
        case .titlecaseLetter: 2
        case .modifierLetter: 3
        case .otherLetter: 4
        case .nonspacingMark: 5
        case .spacingMark: 6
        case .enclosingMark: 7
        case .decimalNumber: 8
        case .letterNumber: 9
        case .otherNumber: 10
        case .connectorPunctuation: 11
        case .dashPunctuation: 12
        case .openPunctuation: 13
        case .closePunctuation: 14
        case .initialPunctuation: 15
        case .finalPunctuation: 16
        case .otherPunctuation: 17
        case .mathSymbol: 18
        case .currencySymbol: 19
        case .modifierSymbol: 20
        case .otherSymbol: 21
        case .spaceSeparator: 22
        case .lineSeparator: 23
        case .paragraphSeparator: 24
        case .control: 25
        case .format: 26
        case .surrogate: 27
        case .privateUse: 28
        case .unassigned: 29
        @unknown default: 29
        }
    }

    /// The property White_Space.
    @inline(__always)
    static func isWhitespace(_ scalar: UInt32) -> Bool {
        if scalar < 0x80 { return scalar == 0x20 || (scalar >= 0x09 && scalar <= 0x0D) }
        return switch scalar {
        case 0x85, 0xA0, 0x1680, 0x2000...0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000: true
        default: false
        }
    }

    /// `\w`: alphabetic, marks, decimal digits, connecting punctuation.
    static func isWord(_ scalar: UInt32) -> Bool {
        let set = categories(scalar)
        if set & (letter | mark | decimalNumber | connectorPunctuation) != 0 { return true }
        if scalar < 0x80 { return false }
        return Unicode.Scalar(scalar)?.properties.isAlphabetic ?? false
    }

    /// `\w` as the tokenizers library takes it outside of patterns in files: the two joiners count.
    static func isWordOrJoiner(_ scalar: UInt32) -> Bool { scalar == 0x200C || scalar == 0x200D || isWord(scalar) }

    static func isNumeric(_ scalar: UInt32) -> Bool {
        scalar < 0x80 ? scalar >= 0x30 && scalar <= 0x39 : categories(scalar) & number != 0
    }

    static func isPunctuation(_ scalar: UInt32) -> Bool {
        if scalar < 0x80 {
            return switch scalar {
            case 0x21...0x2F, 0x3A...0x40, 0x5B...0x60, 0x7B...0x7E: true
            default: false
            }
        }
        return categories(scalar) & punctuation != 0
    }

    /// Chinese, Japanese and Korean ideographs (script Han).
    static func isHan(_ scalar: UInt32) -> Bool {
        switch scalar {
        case 0x2E80...0x2E99, 0x2E9B...0x2EF3, 0x2F00...0x2FD5, 0x3005, 0x3007, 0x3021...0x3029, 0x3038...0x303B,
            0x3400...0x4DBF, 0x4E00...0x9FFF, 0xF900...0xFA6D, 0xFA70...0xFAD9, 0x16FE2, 0x16FE3, 0x16FF0...0x16FF6,
            0x20000...0x2A6DF, 0x2A700...0x2EBE0, 0x2EBF0...0x2EE5D, 0x2F800...0x2FA1D, 0x30000...0x3347F:
            true
        default: false
        }
    }
}
