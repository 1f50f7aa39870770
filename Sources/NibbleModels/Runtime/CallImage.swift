import NibbleCore

/// Writes the rows of one call into the host's index image.
///
/// Recurrent layers know only two blocks of a row: the one whose state it begins from and the one that it leaves its state in. Their
/// table counts positions as if all before the call were one block, so that it stays small and the two can be any.
struct CallImage {
    /// Which of a row's tokens get logits.
    enum Wanted { case none, last, all }

    private let image: IndexBuffers.Image
    private let blocksPerRow: Int
    private var written: BatchShape
    /// Rows at the front that have one token each.
    private var singles = 0
    /// Positions that every row's blocks hold behind its last token.
    private var room = Int.max
    /// Tokens whose logits are wanted so far.
    private(set) var selected = 0

    /// - Parameters:
    ///   - call: lengths and launch bounds; its rows and tokens are counted here.
    ///   - blocksPerRow: logical blocks that a row can have.
    init(_ image: IndexBuffers.Image, _ call: BatchShape, blocksPerRow: Int) {
        self.image = image
        written = call
        self.blocksPerRow = blocksPerRow
        (written.rows, written.tokens) = (0, 0)
        image.queryOffsets[0] = 0
        image.promptOffsets[0] = 0
    }

    /// The sizes of what was written.
    var call: BatchShape {
        var call = written
        call.decodingRows = singles < call.rows ? singles : 0
        return call
    }

    /// Entries of a block table that the rows take.
    var tableCount: Int { written.rows * stride }
    private var stride: Int { written.tableStride ?? blocksPerRow }
    /// Entries of the table of states that the rows take.
    var stateCount: Int { written.rows * stateStride }
    private var stateStride: Int { written.stateStride ?? image.stateColumns }

    /// Adds a row whose `tokens` follow `start` positions.
    /// - Parameters:
    ///   - slot: where the records of how its next token is chosen and of its adapters lie.
    ///   - counter: how many tokens were chosen for it before.
    mutating func addRow(
        _ tokens: ArraySlice<Int32>, start: Int, wanted: Wanted, slot: Int = 0, counter: Int = 0
    ) {
        let row = written.rows
        var count = written.tokens
        let isSingle = singles == row && tokens.count == 1
        for (step, token) in tokens.enumerated() {
            image.tokens[count] = token
            image.positions[count] = Int32(start + step)
            image.rows[count] = Int32(row)
            if !isSingle { image.promptRows[count - singles] = Int32(row - singles) }
            image.adapterSlots[count] = Int32(slot)
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
        if isSingle { singles += 1 } else { image.promptOffsets[row - singles + 1] = Int32(count - singles) }
        written.rows += 1
        written.tokens = count
        written.maximumQueryLength = max(written.maximumQueryLength, tokens.count)
    }

    private mutating func select(_ token: Int) {
        image.selected[selected] = Int32(token)
        image.selectedAdapterSlots[selected] = image.adapterSlots[token]
        selected += 1
    }

    /// Sets the physical blocks of the row that was added last. A negative block is one that no kernel reads.
    mutating func setBlocks(_ blocks: some Sequence<Int32>, table: Int = 0) {
        let target = image.blockTable(table)
        var place = (written.rows - 1) * stride
        let first = place
        for block in blocks.prefix(stride) {
            target[place] = max(block, 0)
            place += 1
        }
        room = min(room, (place - first) * KeyValueGeometry.blockSize - Int(image.lengths[written.rows - 1]))
    }

    /// Sets where the row that was added last reads and leaves its state.
    /// - Parameter next: the block that the state after this one goes to, if it is known.
    mutating func setState(_ blocks: StateTable.Blocks, next: Int32?) {
        let (row, block) = (written.rows - 1, KeyValueGeometry.blockSize)
        let count = Int(image.queryOffsets[row + 1] - image.queryOffsets[row])
        let start = blocks.source == nil ? 0 : block
        let (table, first) = (image.stateTable, row * stateStride)
        image.stateLengths[row] = Int32(start + count)
        for place in 0...(start + count - 1) / block { table[first + place] = blocks.target }
        if let source = blocks.source { table[first] = source }
        image.nextStates[row] = next ?? -1
        if next == nil { room = 0 }
    }

    // MARK: Steps of one token a row

    /// What a step's row asks for.
    struct StepRow {
        var slot: Int
        var token: Int32
        var position: Int
        var counter: Int

        var foreseen: StepAhead.Row { .init(token: token, position: position, counter: counter) }
    }

    func row(_ index: Int) -> StepRow {
        StepRow(
            slot: Int(image.slots[index]), token: image.tokens[index], position: Int(image.positions[index]),
            counter: Int(image.counters[index]))
    }

    /// Adds a row without a slot that writes into the blocks with these numbers, one for each table.
    mutating func addPadding(blocks: [Int], stateTable: Int?) {
        let room = room
        addRow([0], start: 0, wanted: .last, slot: -1)
        for (table, block) in blocks.enumerated() {
            if table == stateTable {
                setState(.init(source: nil, target: Int32(block)), next: nil)
            } else {
                setBlocks(CollectionOfOne(Int32(block)), table: table)
            }
        }
        self.room = room
    }

    /// Becomes the step after this one: each row has the token that is chosen for its slot. Answers whether the rows' blocks
    /// hold one more position; if not, nothing has changed.
    mutating func goOn() -> Bool {
        guard room > 0 else { return false }
        for index in 0..<written.rows where image.slots[index] >= 0 {
            image.tokens[index] = -1 - image.slots[index]
            image.positions[index] += 1
            image.lengths[index] += 1
            image.counters[index] += 1
            if image.stateColumns > 0 { goOnWithState(index) }
        }
        room -= 1
        written.maximumLength += 1
        if let length = written.rotaryLength { written.rotaryLength = max(length, written.maximumLength) }
        return true
    }

    /// The state that a row left becomes the one that it begins from.
    private func goOnWithState(_ row: Int) {
        let (table, first) = (image.stateTable, row * stateStride)
        if Int(image.stateLengths[row]) > KeyValueGeometry.blockSize { table[first] = table[first + 1] }
        table[first + 1] = image.nextStates[row]
        image.stateLengths[row] = Int32(KeyValueGeometry.blockSize + 1)
    }
}
