import NibbleCore

/// Writes the rows of one call into the host's index image.
struct CallImage {
    /// Which of a row's tokens get logits.
    enum Wanted { case none, last, all }

    private let image: IndexBuffers.Image
    private let blocksPerRow: Int
    private(set) var call: BatchShape
    /// Tokens whose logits are wanted so far.
    private(set) var selected = 0

    /// - Parameters:
    ///   - call: lengths and launch bounds; its rows and tokens are counted here.
    ///   - blocksPerRow: logical blocks that a row can have.
    init(_ image: IndexBuffers.Image, _ call: BatchShape, blocksPerRow: Int) {
        self.image = image
        self.call = call
        self.blocksPerRow = blocksPerRow
        (self.call.rows, self.call.tokens) = (0, 0)
        image.queryOffsets[0] = 0
    }

    /// Entries of a block table that the rows take.
    var tableCount: Int { call.rows * stride }
    private var stride: Int { call.tableStride ?? blocksPerRow }

    /// Adds a row whose `tokens` follow `start` positions.
    /// - Parameters:
    ///   - slot: where the record of how its next token is chosen lies.
    ///   - counter: how many tokens were chosen for it before.
    mutating func addRow(
        _ tokens: ArraySlice<Int32>, start: Int, wanted: Wanted, slot: Int = 0, counter: Int = 0
    ) {
        let row = call.rows
        var count = call.tokens
        for (step, token) in tokens.enumerated() {
            image.tokens[count] = token
            image.positions[count] = Int32(start + step)
            image.rows[count] = Int32(row)
            if wanted == .all { select(count) }
            count += 1
        }
        if wanted == .last {
            image.counters[selected] = Int32(truncatingIfNeeded: counter)
            image.slots[selected] = Int32(slot)
            select(count - 1)
        }
        image.lengths[row] = Int32(start + tokens.count)
        image.queryOffsets[row + 1] = Int32(count)
        call.rows += 1
        call.tokens = count
        call.maximumQueryLength = max(call.maximumQueryLength, tokens.count)
    }

    private mutating func select(_ token: Int) {
        image.selected[selected] = Int32(token)
        selected += 1
    }

    /// Sets the physical blocks of the row that was added last. A negative block is one that no kernel reads.
    func setBlocks(_ blocks: some Sequence<Int32>, table: Int = 0) {
        let target = image.blockTable(table)
        var place = (call.rows - 1) * stride
        for block in blocks.prefix(stride) {
            target[place] = max(block, 0)
            place += 1
        }
    }
}
