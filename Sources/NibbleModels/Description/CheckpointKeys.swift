/// How the names in a checkpoint map to the tree's parameter names.
///
/// First the family's renames apply. Then the base prefix is added or removed, if that makes a known name
/// (`h.0.ln_1.weight` ↔ `transformer.h.0.ln_1.weight`).
package struct CheckpointKeys: Sendable {
    /// `transformer`, `model` …; empty for families without.
    package var basePrefix: String
    /// Rewrites a name, or returns it unchanged.
    package var rename: @Sendable (String) -> String
    /// The name in written files of a parameter that ``rename`` renames: its inverse.
    package var fileName: @Sendable (String) -> String
    /// Endings of names that files may hold and that have no meaning.
    package var ignoredSuffixes: [String]

    /// Beginnings of names that files may hold and that have no meaning: whole modules.
    package var ignoredPrefixes: [String] = []

    package init(
        basePrefix: String, ignoredSuffixes: [String] = [], fileName: @escaping @Sendable (String) -> String = { $0 },
        rename: @escaping @Sendable (String) -> String = { $0 }
    ) {
        self.basePrefix = basePrefix
        self.ignoredSuffixes = ignoredSuffixes + ["rotary_emb.inv_freq", "position_ids"]
        self.fileName = fileName
        self.rename = rename
    }

    /// Renames by parts of names: what files call `file`, the tree calls `tree`. Each pair's words occur on one side only.
    init(basePrefix: String, pairs: [(file: String, tree: String)]) {
        self.init(
            basePrefix: basePrefix, fileName: { pairs.reduce($0) { $0.replacing($1.tree, with: $1.file) } },
            rename: { pairs.reduce($0) { $0.replacing($1.file, with: $1.tree) } })
    }

    /// Adds endings to ``ignoredSuffixes``.
    mutating func ignore(_ suffixes: String...) { ignoredSuffixes += suffixes }

    /// The parameter that `key` holds, or `nil` if the model has none of that name.
    package func parameter(for key: String, isKnown: (String) -> Bool) -> String? {
        let name = rename(key)
        let prefix = basePrefix + "."
        if !basePrefix.isEmpty {
            if name.utf8.starts(with: prefix.utf8) {
                let rest = String(decoding: name.utf8.dropFirst(prefix.utf8.count), as: UTF8.self)
                if isKnown(rest) { return rest }
            }
            if isKnown(prefix + name) { return prefix + name }
        }
        return isKnown(name) ? name : nil
    }

    package func isIgnored(_ key: String) -> Bool {
        let isOfIgnoredModule = ignoredPrefixes.contains { key == $0 || key.utf8.starts(with: ($0 + ".").utf8) }
        return isOfIgnoredModule
            || ignoredSuffixes.contains {
                key.utf8.elementsEqual($0.utf8) || key.utf8.reversed().starts(with: ("." + $0).utf8.reversed())
            }
    }
}
