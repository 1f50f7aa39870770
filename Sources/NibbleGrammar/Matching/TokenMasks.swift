extension GrammarAutomaton {
    /// Which tokens may follow a text that leads to `state`, as bits of ``GrammarVocabulary/maskWords`` words. Tokens that end a
    /// text are allowed where the text is complete.
    mutating func mask(_ state: State, _ vocabulary: GrammarVocabulary) throws(GrammarError) -> [UInt32] {
        guard state != Self.dead else { return [UInt32](repeating: 0, count: vocabulary.maskWords) }
        var mask: [UInt32]
        if try plainRun(state) >= vocabulary.longestPlain {
            mask = vocabulary.plainMask
        } else {
            mask = [UInt32](repeating: 0, count: vocabulary.maskWords)
            try walk(state, vocabulary.plain, vocabulary.plainMasks, &mask)
        }
        try walk(state, vocabulary.others, [], &mask)
        if isAccepting(state) { mask.formUnion(vocabulary.endMask) }
        return mask
    }

    /// Adds the tokens of `tree` that may follow. Within a string whole subtrees may: their tokens are added without a walk.
    ///
    /// - Parameter masks: of the subtrees under each first byte, where they are large; empty where `tree` holds other tokens than
    ///   those of plain bytes.
    private mutating func walk(
        _ state: State, _ tree: TokenTrie, _ masks: [[UInt32]], _ mask: inout [UInt32]
    ) throws(GrammarError) {
        var path = [State](repeating: state, count: TokenTrie.maximumTokenBytes + 1)
        let isPlain = !masks.isEmpty
        var index = 0
        while index < tree.nodes.count - 1 {
            let node = tree.nodes[index]
            let reached = try next(path[Int(node.depth) - 1], node.byte)
            guard reached != Self.dead else {
                index = Int(node.end)
                continue
            }
            path[Int(node.depth)] = reached
            if isPlain, node.end - Int32(index) > Self.smallSubtree, try plainRun(reached) >= Int(node.height) {
                if node.depth == 1, !masks[Int(node.byte)].isEmpty {
                    mask.formUnion(masks[Int(node.byte)])
                } else {
                    let end = Int(tree.nodes[Int(node.end)].firstToken)
                    for token in tree.tokens[Int(node.firstToken)..<end] { mask.insert(token) }
                }
                index = Int(node.end)
                continue
            }
            index += 1
            for token in tree.tokens[Int(node.firstToken)..<Int(tree.nodes[index].firstToken)] { mask.insert(token) }
        }
    }

    /// Subtrees of at most so many nodes are walked.
    private static let smallSubtree: Int32 = 8
}
