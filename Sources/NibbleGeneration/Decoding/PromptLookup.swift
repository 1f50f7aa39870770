/// Proposes what followed the last tokens when they stood in the sequence before (Saxena 2023).
struct PromptLookup {
    /// The most tokens to propose.
    let tokens: Int
    let maximumNgram: Int
    /// How many of them are worth checking by what was accepted last.
    private var length: Int

    init(tokens: Int, maximumNgram: Int) {
        self.tokens = tokens
        self.maximumNgram = maximumNgram
        length = tokens
    }

    /// Proposals that are refused cost as much as tokens: after one of which k were accepted, k + 1 are tried, and twice as many
    /// each time that all are.
    mutating func adapt(accepted: Int, of proposed: Int) {
        guard proposed > 0 else { return }
        length = accepted == proposed ? min(length * 2, tokens) : accepted + 1
    }

    /// The continuation of the leftmost earlier occurrence of the longest matching n-gram, cut before an eos; at most `limit`
    /// tokens. Empty if there is none.
    func propose(after ids: UnsafeBufferPointer<Int32>, limit: Int, eos: [Int32]) -> [Int32] {
        let limit = min(limit, length)
        guard limit > 0, ids.count > 1 else { return [] }
        for size in stride(from: min(maximumNgram, ids.count - 1), through: 1, by: -1) {
            let tail = ids.count - size
            guard
                let start = (0..<tail).first(where: { start in
                    (0..<size).allSatisfy { ids[start + $0] == ids[tail + $0] }
                })
            else { continue }
            let follow = ids[(start + size)..<min(start + size + limit, ids.count)]
            return Array(follow.prefix { !eos.contains($0) })
        }
        return []
    }
}
