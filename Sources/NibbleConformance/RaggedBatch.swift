internal import NibbleCore

/// Rows of different lengths over a cache whose blocks are assigned in a scrambled order.
struct RaggedBatch {
    /// Of each row: its tokens in this call, and the keys it holds afterwards.
    let queryLengths: [Int]
    let lengths: [Int]
    let blockTable: [Int32]
    let tableWidth: Int
    let blockCount: Int

    var tokenCount: Int { queryLengths.reduce(0, +) }
    var rowCount: Int { lengths.count }

    /// - Parameters:
    ///   - lengths: keys of each row after this call, at least its tokens.
    ///   - capacity: positions that the table has blocks for; calls with the same capacity have the same table.
    init(queryLengths: [Int], lengths: [Int], capacity: Int = 1) {
        self.queryLengths = queryLengths
        self.lengths = lengths
        let width = KeyValueGeometry.blocks(for: max(1, capacity, lengths.max() ?? 1))
        tableWidth = width
        // A permutation of all blocks but one, which stays unused; 7 is coprime to the count.
        var count = lengths.count * width + 1
        if count % 7 == 0 { count += 1 }
        blockCount = count
        blockTable = (0..<lengths.count * width).map { Int32(($0 * 7 + 3) % count) }
    }

    /// For each token its row and its position.
    var places: [(row: Int, position: Int)] {
        queryLengths.indices.flatMap { row in
            (0..<queryLengths[row]).map { (row, lengths[row] - queryLengths[row] + $0) }
        }
    }

    func slot(row: Int, position: Int) -> (block: Int, slot: Int) {
        let block = blockTable[row * tableWidth + position / KeyValueGeometry.blockSize]
        return (Int(block), position % KeyValueGeometry.blockSize)
    }

    func indices(_ context: OperationContext, tokens: [Int32]? = nil, positions: [Int32]? = nil) throws -> BatchIndices {
        let places = places
        var offsets: [Int32] = [0]
        for length in queryLengths { offsets.append((offsets.last ?? 0) + Int32(length)) }
        return BatchIndices(
            tokens: try context.integers(tokens ?? places.indices.map { Int32($0) }),
            positions: try context.integers(positions ?? places.map { Int32($0.position) }),
            rows: try context.integers(places.map { Int32($0.row) }), queryOffsets: try context.integers(offsets),
            lengths: try context.integers(lengths.map { Int32($0) }),
            blockTable: try context.integers(blockTable, [rowCount, tableWidth]), tokenCount: tokenCount,
            rowCount: rowCount, maximumQueryLength: queryLengths.max() ?? 0, maximumLength: lengths.max() ?? 0)
    }
}
