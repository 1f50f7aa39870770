import NibbleCore

/// Which modules stay unquantized, by name.
///
/// An entry skips a module in two cases. Read as a regular expression, it matches from the start of the full name to a dot
/// or the end: `model.layers.1` skips everything below that layer, but not `model.layers.11`. Or the full name ends with it.
/// Names compare code point by code point.
package struct SkipRules: Sendable {
    private let rules: [Rule]
    private let wholeParts: Bool

    private struct Rule: @unchecked Sendable {
        let entry: String
        /// `nil` where the entry has nothing but names and dots.
        let pattern: Regex<AnyRegexOutput>?
    }

    /// - Parameter wholeParts: an ending must begin at a dot (`wo` skips `ff.wo`, not `ff.two`). The reference compares text.
    package init(_ entries: [String], wholeParts: Bool = true) {
        self.wholeParts = wholeParts
        rules = entries.map { entry in
            let isName = entry.allSatisfy { $0.isLetter || $0.isNumber || $0 == "_" || $0 == "." }
            return Rule(entry: entry, pattern: isName ? nil : try? Regex(entry))
        }
    }

    package func skips(_ module: String) -> Bool { rules.contains { matches($0, module) } }

    private func matches(_ rule: Rule, _ module: String) -> Bool {
        if rule.entry.isEmpty { return true }
        if endsWith(rule.entry, module) { return true }
        guard let pattern = rule.pattern else {
            return module.hasSameBytes(as: rule.entry) || module.hasBytePrefix(rule.entry + ".")
        }
        guard let match = try? pattern.prefixMatch(in: module) else { return false }
        return match.range.upperBound == module.endIndex || module[match.range.upperBound] == "."
    }

    private func endsWith(_ entry: String, _ module: String) -> Bool {
        guard module.hasByteSuffix(entry) else { return false }
        return !wholeParts || module.utf8.count == entry.utf8.count || module.hasByteSuffix("." + entry)
            || entry.hasBytePrefix(".")
    }
}
