extension StringProtocol {
    /// The text as an error message or a log may show it: control characters, line separators and characters that reorder
    /// text are written as `\u{1b}`, and what exceeds `limit` scalars is cut.
    ///
    /// Names that come from files, servers and users pass through here before they reach a terminal.
    package func printable(limit: Int = 200) -> String {
        var shown = ""
        for (count, scalar) in unicodeScalars.enumerated() {
            if count == limit { return shown + "… (\(unicodeScalars.count) characters)" }
            if scalar.changesTerminal {
                shown += "\\u{\(String(scalar.value, radix: 16))}"
            } else {
                shown.unicodeScalars.append(scalar)
            }
        }
        return shown
    }

    /// ``printable(limit:)`` for a path, which is never cut.
    package var printablePath: String { printable(limit: .max) }
}

extension Unicode.Scalar {
    /// Moves the cursor, starts an escape sequence, breaks the line or reorders the text around it.
    fileprivate var changesTerminal: Bool {
        switch properties.generalCategory {
        case .control, .lineSeparator, .paragraphSeparator: true
        default: (0x202A...0x202E).contains(value) || (0x2066...0x2069).contains(value)
        }
    }
}
