/// Proposes the tokens that followed an earlier occurrence of the sequence's last tokens (Saxena 2023).
struct PromptLookup {
    /// The most tokens to propose.
    let tokens: Int
    let maximumNgram: Int
    /// The most tokens to propose next, adapted to how many were accepted last.
    private var length: Int

    init(tokens: Int, maximumNgram: Int) {
        self.tokens = tokens
        self.maximumNgram = maximumNgram
        length = tokens
    }

    /// A rejected token costs as much as an accepted one. After a proposal of which k tokens were accepted, the next has at most
    /// k + 1; after one that was accepted as a whole, twice as many.
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
