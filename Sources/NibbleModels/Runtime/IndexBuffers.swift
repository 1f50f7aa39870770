import NibbleCore

/// The index buffers of a session on one backend: one allocation, and one copy from the host a call.
///
/// Each array has a fixed place, sized for the largest call, so that captured graphs find it at the same address.
package final class IndexBuffers {
    private let arena: Tensor
    private let limits: Limits

    /// The sizes of the largest call.
    package struct Limits {
        package var tokens: Int
        package var rows: Int
        package var blocksPerRow: Int
        /// The number of block tables of keys and values.
        package var tables: Int
        /// Whether there is a table of states.
        package var hasStates: Bool

        /// Columns of the table of states: one for the state that a row begins from, and one for each block of a call's tokens.
        var stateColumns: Int { hasStates ? 1 + KeyValueGeometry.blocks(for: tokens) : 0 }

        package init(tokens: Int, rows: Int, blocksPerRow: Int, tables: Int = 1, hasStates: Bool = false) {
            self.tokens = tokens
            self.rows = rows
            self.blocksPerRow = blocksPerRow
            self.tables = tables
            self.hasStates = hasStates
        }
    }

    /// The host's copy of all index buffers, which ``upload(_:backend:)`` sends.
    package struct Image {
        fileprivate(set) var values: Tensor
        fileprivate let limits: Limits

        package init(_ limits: Limits) {
            self.limits = limits
            values = .host(.int32, [Places(limits).total])
            values.mutableHostElements(Int32.self).initialize(repeating: 0)
        }

        private func slice(_ place: Int, _ count: Int) -> UnsafeMutableBufferPointer<Int32> {
            UnsafeMutableBufferPointer(rebasing: values.mutableHostElements(Int32.self)[place..<place + count])
        }

        package var tokens: UnsafeMutableBufferPointer<Int32> { slice(Places(limits).tokens, limits.tokens) }
        package var positions: UnsafeMutableBufferPointer<Int32> { slice(Places(limits).positions, limits.tokens) }
        package var rows: UnsafeMutableBufferPointer<Int32> { slice(Places(limits).rows, limits.tokens) }
        package var queryOffsets: UnsafeMutableBufferPointer<Int32> { slice(Places(limits).queryOffsets, limits.rows + 1) }
        package var lengths: UnsafeMutableBufferPointer<Int32> { slice(Places(limits).lengths, limits.rows) }
        /// Of the rows behind those that decode, counted from there: their queries and the rows of their tokens.
        package var promptOffsets: UnsafeMutableBufferPointer<Int32> { slice(Places(limits).promptOffsets, limits.rows + 1) }
        package var promptRows: UnsafeMutableBufferPointer<Int32> { slice(Places(limits).promptRows, limits.tokens) }
        /// For each token whose logits are wanted: how many tokens were chosen for its sequence before.
        package var counters: UnsafeMutableBufferPointer<Int32> { slice(Places(limits).counters, limits.rows) }
        /// For each token whose logits are wanted: the slot of its sequence.
        package var slots: UnsafeMutableBufferPointer<Int32> { slice(Places(limits).slots, limits.rows) }
        /// Places, among those tokens, of the ones whose probabilities are wanted.
        package var scored: UnsafeMutableBufferPointer<Int32> { slice(Places(limits).scored, limits.rows) }
        /// Indices of the tokens whose logits are wanted.
        package var selected: UnsafeMutableBufferPointer<Int32> { slice(Places(limits).selected, limits.tokens) }
        /// Of each row as the recurrent layers count it: see ``CallImage``. The table of states follows.
        var stateLengths: UnsafeMutableBufferPointer<Int32> { slice(Places(limits).stateLengths, limits.rows) }
        /// [R, columns of the call]
        var stateTable: UnsafeMutableBufferPointer<Int32> {
            slice(Places(limits).stateTable, limits.rows * limits.stateColumns)
        }
        /// The blocks that the rows' next states go to; the device does not read them.
        var nextStates: UnsafeMutableBufferPointer<Int32> { slice(Places(limits).nextStates, limits.rows) }
        var stateColumns: Int { limits.stateColumns }

        /// The slot whose adapters each token uses; negative: none.
        package var adapterSlots: UnsafeMutableBufferPointer<Int32> { slice(Places(limits).adapterSlots, limits.tokens) }
        /// The same for the tokens whose logits are wanted.
        package var selectedAdapterSlots: UnsafeMutableBufferPointer<Int32> {
            slice(Places(limits).selectedAdapterSlots, limits.tokens)
        }
        package func blockTable(_ table: Int = 0) -> UnsafeMutableBufferPointer<Int32> {
            let size = limits.rows * limits.blocksPerRow
            return slice(Places(limits).blockTable + table * size, size)
        }
    }

    private struct Places {
        let tokens, positions, rows, queryOffsets, lengths, counters, slots, scored, selected: Int
        let promptOffsets, promptRows, adapterSlots, selectedAdapterSlots, blockTable, stateLengths, stateTable, nextStates,
            total: Int

        init(_ limits: Limits) {
            tokens = 0
            positions = tokens + limits.tokens
            rows = positions + limits.tokens
            queryOffsets = rows + limits.tokens
            lengths = queryOffsets + limits.rows + 1
            counters = lengths + limits.rows
            slots = counters + limits.rows
            scored = slots + limits.rows
            selected = scored + limits.rows
            promptOffsets = selected + limits.tokens
            promptRows = promptOffsets + limits.rows + 1
            adapterSlots = promptRows + limits.tokens
            selectedAdapterSlots = adapterSlots + limits.tokens
            blockTable = selectedAdapterSlots + limits.tokens
            stateLengths = blockTable + limits.tables * limits.rows * limits.blocksPerRow
            let stateRows = limits.hasStates ? limits.rows : 0
            stateTable = stateLengths + stateRows
            nextStates = stateTable + stateRows * limits.stateColumns
            total = nextStates + stateRows
        }
    }

    init(_ limits: Limits, backend: any Backend) throws {
        self.limits = limits
        arena = try backend.allocate(.int32, [Places(limits).total])
    }

    static func byteCount(_ limits: Limits) -> Int { Places(limits).total * DType.int32.byteCount }

    /// - Parameters:
    ///   - tableCount: entries of each block table that are in use; `nil`: all.
    ///   - stateCount: entries of the table of states that are in use.
    func upload(_ image: Image, tableCount: Int? = nil, stateCount: Int = 0, backend: any Backend) throws {
        guard let tableCount else { return try backend.copy(image.values, to: arena) }
        func upload(_ used: Range<Int>) throws { try backend.copy(image.values.rows(used), to: arena.rows(used)) }
        let (places, size) = (Places(limits), limits.rows * limits.blocksPerRow)
        let first = places.blockTable
        try upload(0..<first + (limits.tables > 0 ? tableCount : 0))
        for table in 1..<max(limits.tables, 1) { try upload(first + table * size..<first + table * size + tableCount) }
        if limits.hasStates { try upload(places.stateLengths..<places.stateTable + stateCount) }
    }

    private func view(_ place: Int, _ shape: Shape) -> Tensor {
        Tensor(
            storage: arena.storage, byteOffset: arena.byteOffset + place * DType.int32.byteCount, dtype: .int32, shape: shape)
    }

    func indices(
        tokens: Int, rows: Int, maximumQueryLength: Int, maximumLength: Int, table: Int = 0, tableStride: Int? = nil
    ) -> BatchIndices {
        let places = Places(limits)
        // Layers without attention read no keys and values.
        let isThere = table < limits.tables
        let blockTable = places.blockTable + (isThere ? table * limits.rows * limits.blocksPerRow : 0)
        return BatchIndices(
            tokens: view(places.tokens, Shape(tokens)), positions: view(places.positions, Shape(tokens)),
            rows: view(places.rows, Shape(tokens)), queryOffsets: view(places.queryOffsets, Shape(rows + 1)),
            lengths: view(places.lengths, Shape(rows)),
            blockTable: view(blockTable, Shape(rows, isThere ? tableStride ?? limits.blocksPerRow : 0)),
            tokenCount: tokens, rowCount: rows, maximumQueryLength: maximumQueryLength, maximumLength: maximumLength)
    }

    /// The same rows as ``indices(tokens:rows:maximumQueryLength:maximumLength:table:tableStride:)``, with the lengths and the
    /// table that recurrent layers read.
    func stateIndices(_ whole: BatchIndices, stride: Int) -> BatchIndices {
        let places = Places(limits)
        return BatchIndices(
            tokens: whole.tokens, positions: whole.positions, rows: whole.rows, queryOffsets: whole.queryOffsets,
            lengths: view(places.stateLengths, Shape(whole.rowCount)),
            blockTable: view(places.stateTable, Shape(whole.rowCount, stride)), tokenCount: whole.tokenCount,
            rowCount: whole.rowCount, maximumQueryLength: whole.maximumQueryLength,
            maximumLength: KeyValueGeometry.blockSize + whole.maximumQueryLength)
    }

    /// `whole` in two parts: its first `rows` rows, of one token each, and the rest.
    func parts(of whole: BatchIndices, decodingRows rows: Int) -> [BatchIndices] {
        let (places, tokens) = (Places(limits), whole.tokenCount - rows)
        let decoding = BatchIndices(
            tokens: whole.tokens.rows(0..<rows), positions: whole.positions.rows(0..<rows), rows: whole.rows.rows(0..<rows),
            queryOffsets: whole.queryOffsets.rows(0..<rows + 1), lengths: whole.lengths.rows(0..<rows),
            blockTable: whole.blockTable.rows(0..<rows), tokenCount: rows, rowCount: rows, maximumQueryLength: 1,
            maximumLength: whole.maximumLength)
        let prompts = BatchIndices(
            tokens: whole.tokens.rows(rows..<whole.tokenCount), positions: whole.positions.rows(rows..<whole.tokenCount),
            rows: view(places.promptRows, Shape(tokens)),
            queryOffsets: view(places.promptOffsets, Shape(whole.rowCount - rows + 1)),
            lengths: whole.lengths.rows(rows..<whole.rowCount), blockTable: whole.blockTable.rows(rows..<whole.rowCount),
            tokenCount: tokens, rowCount: whole.rowCount - rows, maximumQueryLength: whole.maximumQueryLength,
            maximumLength: whole.maximumLength)
        return [decoding, prompts]
    }

    func tokens(_ count: Int) -> Tensor { view(Places(limits).tokens, Shape(count)) }
    func counters(_ count: Int) -> Tensor { view(Places(limits).counters, Shape(count)) }
    func slots(_ count: Int) -> Tensor { view(Places(limits).slots, Shape(count)) }
    func scored(_ count: Int) -> Tensor { view(Places(limits).scored, Shape(count)) }
    /// int32 [the most tokens of a call]
    var adapterSlots: Tensor { view(Places(limits).adapterSlots, Shape(limits.tokens)) }
    func selectedAdapterSlots(_ range: Range<Int>) -> Tensor {
        view(Places(limits).selectedAdapterSlots + range.lowerBound, Shape(range.count))
    }
    func selected(_ count: Int) -> Tensor { view(Places(limits).selected, Shape(count)) }
}
