/// How a checkpoint's names become a tree's parameter names.
///
/// In order: the family's renames, then the base prefix is added or removed where that makes a known name
/// (`h.0.ln_1.weight` ↔ `transformer.h.0.ln_1.weight`).
package struct CheckpointKeys: Sendable {
    /// `transformer`, `model` …; empty for families without.
    package var basePrefix: String
    /// Rewrites a name, or returns it unchanged.
    package var rename: @Sendable (String) -> String
    /// The name under which files hold what the tree calls otherwise: undoes ``rename`` where that loses something.
    package var fileName: @Sendable (String) -> String
    /// Endings of names that may be in a file and mean nothing.
    package var ignoredSuffixes: [String]

    package init(
        basePrefix: String, ignoredSuffixes: [String] = [], fileName: @escaping @Sendable (String) -> String = { $0 },
        rename: @escaping @Sendable (String) -> String = { $0 }
    ) {
        self.basePrefix = basePrefix
        self.ignoredSuffixes = ignoredSuffixes + ["rotary_emb.inv_freq", "position_ids"]
        self.fileName = fileName
        self.rename = rename
    }

    /// The parameter that `key` holds, or `nil` if the model has none of that name.
    package func parameter(for key: String, isKnown: (String) -> Bool) -> String? {
        let name = rename(key)
        let prefix = basePrefix + "."
        if !basePrefix.isEmpty {
            if name.hasPrefix(prefix), isKnown(String(name.dropFirst(prefix.count))) {
                return String(name.dropFirst(prefix.count))
            }
            if isKnown(prefix + name) { return prefix + name }
        }
        return isKnown(name) ? name : nil
    }

    package func isIgnored(_ key: String) -> Bool {
        ignoredSuffixes.contains { key == $0 || key.hasSuffix("." + $0) }
    }
}
