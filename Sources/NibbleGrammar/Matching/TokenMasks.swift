extension GrammarAutomaton {
    /// Which tokens may follow a text that leads to `state`, as bits of ``GrammarVocabulary/maskWords`` words. Tokens that end a
    /// text are allowed where the text is complete.
    mutating func mask(_ state: State, _ vocabulary: GrammarVocabulary) throws(GrammarError) -> [UInt32] {
        var mask = [UInt32](repeating: 0, count: vocabulary.maskWords)
        guard state != Self.dead else { return mask }
        var tree = vocabulary.all
        if let slice = try plainSlice(state, vocabulary) {
            mask = slice.mask
            tree = slice.others
        }
        try walk(state, tree, &mask)
        if isAccepting(state) {
            for token in vocabulary.endTokens where Int(token) < vocabulary.tokenBytes.count {
                mask[Int(token) / 32] |= 1 << (UInt32(token) % 32)
            }
        }
        return mask
    }

    /// The largest slice whose tokens are all allowed: from `state`, plain bytes lead to one state, from there to one state, and
    /// so on, as within a string.
    private mutating func plainSlice(
        _ state: State, _ vocabulary: GrammarVocabulary
    ) throws(GrammarError) -> GrammarVocabulary.PlainSlice? {
        var current = state
        var steps = 0
        while let next = try commonSuccessor(current), steps < 30 {
            if next == current { return vocabulary.plainSlices.last }
            current = next
            steps += 1
        }
        return vocabulary.plainSlices.dropLast().last { $0.maximumBytes <= steps }
    }

    private mutating func commonSuccessor(_ state: State) throws(GrammarError) -> State? {
        let first = try next(state, GrammarVocabulary.plainBytes[0])
        guard first != Self.dead else { return nil }
        for byte in GrammarVocabulary.plainBytes {
            guard try next(state, byte) == first else { return nil }
        }
        return first
    }

    private mutating func walk(_ state: State, _ tree: TokenTrie, _ mask: inout [UInt32]) throws(GrammarError) {
        var path = [State](repeating: state, count: TokenTrie.maximumTokenBytes + 1)
        var node = 0
        var nextDuplicate = 0
        while node < tree.bytes.count {
            let depth = Int(tree.depths[node])
            let reached = try next(path[depth - 1], tree.bytes[node])
            guard reached != Self.dead else {
                node = Int(tree.subtreeEnds[node])
                continue
            }
            path[depth] = reached
            let token = tree.tokens[node]
            if token >= 0 {
                mask[Int(token) / 32] |= 1 << (UInt32(token) % 32)
                while nextDuplicate < tree.duplicates.count, tree.duplicates[nextDuplicate].node < node { nextDuplicate += 1 }
                while nextDuplicate < tree.duplicates.count, tree.duplicates[nextDuplicate].node == node {
                    let other = tree.duplicates[nextDuplicate].token
                    mask[Int(other) / 32] |= 1 << (UInt32(other) % 32)
                    nextDuplicate += 1
                }
            }
            node += 1
        }
    }
}
