/// Which modules stay unquantized, by name.
///
/// An entry skips a module if, read as a regular expression, it matches from the start of the full name to a dot or the
/// end (`model.layers.1` skips everything below that layer, not `model.layers.11`); or if the full name ends with it.
package struct SkipRules: Sendable {
    private let rules: [Rule]
    private let wholeParts: Bool

    private struct Rule: @unchecked Sendable {
        let text: String
        /// Only where the entry uses more than names and dots.
        let pattern: Regex<AnyRegexOutput>?
    }

    /// - Parameter wholeParts: an ending must begin at a dot (`wo` skips `ff.wo`, not `ff.two`). The reference compares text.
    package init(_ entries: [String], wholeParts: Bool = true) {
        self.wholeParts = wholeParts
        rules = entries.map { entry in
            let isName = entry.allSatisfy { $0.isLetter || $0.isNumber || $0 == "_" || $0 == "." }
            return Rule(text: entry, pattern: isName ? nil : try? Regex(entry))
        }
    }

    package func skips(_ module: String) -> Bool { rules.contains { matches($0, module) } }

    private func matches(_ rule: Rule, _ module: String) -> Bool {
        if rule.text.isEmpty { return true }
        if endsWith(rule.text, module) { return true }
        guard let pattern = rule.pattern else {
            return module == rule.text || module.hasPrefix(rule.text + ".")
        }
        guard let match = try? pattern.prefixMatch(in: module) else { return false }
        return match.range.upperBound == module.endIndex || module[match.range.upperBound] == "."
    }

    private func endsWith(_ text: String, _ module: String) -> Bool {
        guard module.hasSuffix(text) else { return false }
        return !wholeParts || module.utf8.count == text.utf8.count || module.hasSuffix("." + text) || text.hasPrefix(".")
    }
}
