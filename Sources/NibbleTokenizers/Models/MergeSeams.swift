/// Finds the places where no merge can join two neighbouring units.
///
/// A merge joins a token that ends in some character with one that begins with some character. Between two characters that no
/// merge joins a word can be cut without changing the result, which keeps the merging of whole texts local.
struct MergeSeams: Sendable {
    private struct Edges {
        var first: UInt32 = 0
        var last: UInt32 = 0
    }

    /// By id.
    private var edges: [Edges]
    private var joined: Set<UInt64> = []

    init(table: TokenTable, merges: MergeTable) {
        edges = [Edges](repeating: Edges(), count: table.idLimit)
        for id in 0..<table.idLimit {
            guard let text = table.text(of: Int32(id)), !text.isEmpty else { continue }
            let bytes = Array(text)
            edges[id] = Edges(
                first: UTF8Text.scalar(in: bytes, at: 0).value, last: UTF8Text.scalar(in: bytes, before: bytes.count).value)
        }
        for (left, right) in merges.pairs { joined.insert(key(left, right)) }
    }

    private func key(_ left: Int32, _ right: Int32) -> UInt64 {
        UInt64(edges[Int(left)].last) << 32 | UInt64(edges[Int(right)].first)
    }

    /// The parts that can be merged by themselves.
    func parts(of units: [ModelPiece]) -> [Range<Int>] {
        var parts: [Range<Int>] = []
        var start = 0
        for index in units.indices.dropFirst() where !joined.contains(key(units[index - 1].id, units[index].id)) {
            parts.append(start..<index)
            start = index
        }
        if start < units.count { parts.append(start..<units.count) }
        return parts
    }
}
