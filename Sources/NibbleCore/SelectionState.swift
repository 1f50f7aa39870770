/// STUB
package final class SelectionState {
    package var records: [SlotSelection]
    package var seen: [Set<Int32>]
    let vocabulary: Int
    package init(slots: Int, vocabulary: Int, backend: any Backend) throws {
        records = Array(repeating: SlotSelection(), count: slots)
        seen = Array(repeating: [], count: slots)
        self.vocabulary = vocabulary
    }
    package func write(_ selection: SlotSelection, slot: Int, prompt: some Sequence<Int32>, generated: some Sequence<Int32>) throws {
        records[slot] = selection
        seen[slot] = Set(Array(prompt) + Array(generated))
    }
    package func writeMask(_ words: UnsafeBufferPointer<Int32>, slot: Int) throws {}
}

extension Backend {
    package func select(_ logits: Tensor, _ state: SelectionState, slots: Tensor, counters: Tensor, into tokens: Tensor) throws {
        let rows = tokens.count
        for row in 0..<rows {
            let slot = Int(slots.hostElements(Int32.self)[row])
            let r = state.records[slot]
            var p = SamplingParameters()
            p.temperature = r.temperature; p.topK = r.topK; p.topP = r.topP; p.minP = r.minP
            p.repetitionPenalty = r.repetitionPenalty; p.seed = r.seed; p.firstStream = r.stream
            p.forbiddenTokens = r.bias.map(\.token)
            let words = SelectionMasks.words(logits.shape.last)
            let masks = SelectionMasks(
                seen: .host(SelectionMasks.set(state.seen[slot], vocabulary: logits.shape.last), .int32, [1, words]), latest: nil,
                forbidden: p.forbiddenTokens.isEmpty ? nil : .host(SelectionMasks.set(p.forbiddenTokens, vocabulary: logits.shape.last), .int32, [words]))
            try select(logits.rows(row..<row + 1), p, masks: masks, counters: counters.rows(row..<row + 1), into: tokens.rows(row..<row + 1))
            state.seen[slot].insert(tokens.hostElements(Int32.self)[row])
        }
    }
    package func scores(_ logits: Tensor, chosen: Tensor, count k: Int, values: Tensor, ids: Tensor) throws { fatalError() }
}
