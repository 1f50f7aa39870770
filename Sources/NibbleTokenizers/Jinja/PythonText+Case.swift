extension PythonText {
    static func upper(_ text: String) -> String {
        if let plain = ascii(text, changing: UInt8(ascii: "a")...UInt8(ascii: "z")) { return plain }
        return mapped(text) { $0.properties.uppercaseMapping }
    }

    static func lower(_ text: String) -> String {
        if let plain = ascii(text, changing: UInt8(ascii: "A")...UInt8(ascii: "Z")) { return plain }
        let scalars = Array(text.unicodeScalars)
        guard scalars.contains("\u{3A3}") else { return mapped(text) { $0.properties.lowercaseMapping } }
        var result = ""
        for (index, scalar) in scalars.enumerated() {
            result +=
                scalar == "\u{3A3}" ? (isFinalSigma(scalars, index) ? "\u{3C2}" : "\u{3C3}") : scalar.properties.lowercaseMapping
        }
        return result
    }

    /// `str.capitalize()`.
    static func capitalize(_ text: String) -> String {
        guard let first = text.unicodeScalars.first else { return "" }
        return first.properties.titlecaseMapping + lower(String(text.unicodeScalars.dropFirst()))
    }

    /// `str.title()`: every run of cased letters starts with a capital.
    static func title(_ text: String) -> String {
        var result = ""
        var inWord = false
        for scalar in text.unicodeScalars {
            result += inWord ? scalar.properties.lowercaseMapping : scalar.properties.titlecaseMapping
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
        mapped(text) { $0.properties.isUppercase ? $0.properties.lowercaseMapping : $0.properties.uppercaseMapping }
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
