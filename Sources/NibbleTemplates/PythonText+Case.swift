extension PythonText {
    static func upper(_ text: String) -> String {
        if let plain = ascii(text, changing: UInt8(ascii: "a")...UInt8(ascii: "z")) { return plain }
        return mapped(text) { $0.properties.uppercaseMapping }
    }

    static func lower(_ text: String) -> String {
        if let plain = ascii(text, changing: UInt8(ascii: "A")...UInt8(ascii: "Z")) { return plain }
        let scalars = Array(text.unicodeScalars)
        return scalars.indices.map { lower(scalars, $0) }.joined()
    }

    /// The lower case of one letter of a text; sigma has another form at the end of a word.
    private static func lower(_ scalars: [Unicode.Scalar], _ index: Int) -> String {
        guard scalars[index] == "\u{3A3}" else { return scalars[index].properties.lowercaseMapping }
        return isFinalSigma(scalars, index) ? "\u{3C2}" : "\u{3C3}"
    }

    /// `str.casefold()`: full case folding is the lower case of the upper case but for the dotless i and Cherokee.
    static func caseFold(_ text: String) -> String {
        if let plain = ascii(text, changing: UInt8(ascii: "A")...UInt8(ascii: "Z")) { return plain }
        return mapped(text) { scalar in
            switch scalar.value {
            case 0x131: String(scalar)
            case 0x13A0...0x13FD, 0xAB70...0xABBF: scalar.properties.uppercaseMapping
            default: mapped(scalar.properties.uppercaseMapping) { $0.properties.lowercaseMapping }
            }
        }
    }

    /// `str.capitalize()`.
    static func capitalize(_ text: String) -> String {
        guard let first = text.unicodeScalars.first else { return "" }
        return first.properties.titlecaseMapping + lower(String(text.unicodeScalars.dropFirst()))
    }

    /// `str.title()`: every run of cased letters starts with a capital.
    static func title(_ text: String) -> String {
        let scalars = Array(text.unicodeScalars)
        var result = ""
        var inWord = false
        for (index, scalar) in scalars.enumerated() {
            result += inWord ? lower(scalars, index) : scalar.properties.titlecaseMapping
            inWord = isCased(scalar)
        }
        return result
    }

    /// Jinja's `title` filter: words start after white space and any of `-({[<`.
    static func filterTitle(_ text: String) -> String {
        var result = ""
        var word: [Unicode.Scalar] = []
        func flush() {
            guard let first = word.first else { return }
            result += upper(String(first)) + lower(PythonText.text(word.dropFirst()))
            word = []
        }
        for scalar in text.unicodeScalars {
            if isSpace(scalar) || "-({[<".unicodeScalars.contains(scalar) {
                flush()
                result.unicodeScalars.append(scalar)
            } else {
                word.append(scalar)
            }
        }
        flush()
        return result
    }

    static func swapCase(_ text: String) -> String {
        let scalars = Array(text.unicodeScalars)
        return scalars.indices.map { index in
            let properties = scalars[index].properties
            if properties.isUppercase { return lower(scalars, index) }
            return properties.isLowercase ? properties.uppercaseMapping : String(scalars[index])
        }.joined()
    }

    /// `str.isupper()` / `str.islower()`: at least one cased letter, and none of the other case.
    static func isUniform(_ text: String, upper: Bool) -> Bool {
        var found = false
        for scalar in text.unicodeScalars where isCased(scalar) {
            guard upper ? scalar.properties.isUppercase : scalar.properties.isLowercase else { return false }
            found = true
        }
        return found
    }

    /// `str.istitle()`: every run of cased letters starts with a capital and goes on with small letters.
    static func isTitle(_ text: String) -> Bool {
        var (found, inWord) = (false, false)
        for scalar in text.unicodeScalars {
            let properties = scalar.properties
            if properties.isUppercase || properties.generalCategory == .titlecaseLetter {
                guard !inWord else { return false }
                (found, inWord) = (true, true)
            } else if properties.isLowercase {
                guard inWord else { return false }
                found = true
            } else {
                inWord = false
            }
        }
        return found
    }

    private static func isCased(_ scalar: Unicode.Scalar) -> Bool { scalar.properties.isCased }

    /// The text with the case of the letters in `range` changed, if it is all ASCII.
    private static func ascii(_ text: String, changing range: ClosedRange<UInt8>) -> String? {
        guard text.utf8.allSatisfy({ $0 < 0x80 }) else { return nil }
        return String(decoding: text.utf8.map { range.contains($0) ? $0 ^ 0x20 : $0 }, as: UTF8.self)
    }

    private static func mapped(_ text: String, _ change: (Unicode.Scalar) -> String) -> String {
        var result = ""
        for scalar in text.unicodeScalars { result += change(scalar) }
        return result
    }

    private static func isFinalSigma(_ scalars: [Unicode.Scalar], _ index: Int) -> Bool {
        let before = scalars[..<index].last { !$0.properties.isCaseIgnorable }
        let after = scalars[(index + 1)...].first { !$0.properties.isCaseIgnorable }
        return (before.map(isCased) ?? false) && !(after.map(isCased) ?? false)
    }
}
