/// Device buffers that tell ``Backend/select(_:_:slots:counters:into:)`` how the tokens of each slot are chosen.
///
/// Everything is allocated at once, and no address ever changes, so captured graphs may use the buffers.
package final class SelectionState {
    /// The most entries of ``SlotSelection/bias``, end tokens included.
    package static let biasLimit = 1024
    /// The largest k of ``Backend/scores(_:chosen:count:values:ids:)``.
    package static let scoreLimit = 20
    /// int32 words of a record.
    package static let recordWords = 16

    package let slots: Int
    /// V
    package let vocabulary: Int
    package let buffers: Buffers

    private let backend: any Backend
    /// By slot: whether tokens are counted.
    private var counting: [Bool]
    /// Host copies of one slot's record, bias and mask, reused by each write.
    private let staged: Buffers

    /// The buffers of a number of slots.
    package struct Buffers {
        /// int32 [slots, recordWords]: `nibble_selection_record` of the C kernels.
        package let records: Tensor
        /// int32 [slots, biasLimit]: the tokens of the bias, then the end tokens.
        package let biasTokens: Tensor
        /// float32 [slots, biasLimit]
        package let biasValues: Tensor
        /// int32 [slots, V]: 2 × how often a token was generated, + 1 if the prompt holds it.
        package let counts: Tensor
        /// int32 [slots, ⌈V/32⌉]: bit v mod 32 of word v / 32 tells whether token v may be chosen.
        package let masks: Tensor
        /// int32 [slots]: the token that was chosen last, or a ``SelectionStatus``.
        package let latest: Tensor

        init(_ shapes: [BufferShape], allocate: (DType, Shape) throws -> Tensor) rethrows {
            let buffers = try shapes.map { try allocate($0.dtype, $0.shape) }
            (records, biasTokens, biasValues, counts) = (buffers[0], buffers[1], buffers[2], buffers[3])
            (masks, latest) = (buffers[4], buffers[5])
        }

        fileprivate init(_ buffers: Buffers, mapped place: (Tensor) -> Tensor) {
            records = place(buffers.records)
            biasTokens = place(buffers.biasTokens)
            biasValues = place(buffers.biasValues)
            counts = place(buffers.counts)
            masks = place(buffers.masks)
            latest = place(buffers.latest)
        }
    }

    /// Every slot is greedy, without adjustments.
    /// - Throws: ``BackendError``
    package init(slots: Int, vocabulary: Int, backend: any Backend) throws {
        precondition(slots >= 0 && vocabulary > 0 && vocabulary <= Int32.max, "\(slots) slots of \(vocabulary) tokens")
        self.slots = slots
        self.vocabulary = vocabulary
        self.backend = backend
        buffers = try Buffers(SelectionState.buffers(slots: slots, vocabulary: vocabulary), allocate: backend.allocate)
        counting = Array(repeating: false, count: slots)
        staged = Buffers(
            SelectionState.buffers(slots: 1, vocabulary: vocabulary, countedSlots: 0), allocate: { Tensor.host($0, $1) })
        for slot in 0..<slots { try write(SlotSelection(), slot: slot, prompt: [], generated: []) }
    }

    private init(_ state: SelectionState, mapped place: (Tensor) -> Tensor) {
        slots = state.slots
        vocabulary = state.vocabulary
        backend = state.backend
        buffers = Buffers(state.buffers, mapped: place)
        staged = state.staged
        counting = state.counting
    }

    /// The same state over other views of its buffers.
    package func mapped(_ place: (Tensor) -> Tensor) -> SelectionState { SelectionState(self, mapped: place) }

    /// Words of a set of a vocabulary's tokens.
    package static func words(_ vocabulary: Int) -> Int { (vocabulary + 31) / 32 }

    /// The buffers of a number of slots, in the order of ``Buffers``.
    /// - Parameter countedSlots: those with counts; `nil`: all.
    package static func buffers(slots: Int, vocabulary: Int, countedSlots: Int? = nil) -> [BufferShape] {
        [
            BufferShape("selection records", .int32, [slots, recordWords]),
            BufferShape("bias tokens", .int32, [slots, biasLimit]), BufferShape("bias values", .float32, [slots, biasLimit]),
            BufferShape("token counts", .int32, [countedSlots ?? slots, vocabulary]),
            BufferShape("token masks", .int32, [slots, words(vocabulary)]), BufferShape("latest tokens", .int32, [slots]),
        ]
    }

    // MARK: Writing

    /// Writes a slot's record, and with penalties its counts. A slot with a mask allows no token until
    /// ``writeMask(_:slot:)``. The other slots stay as they are; if this throws ``SelectionError``, so does this one.
    /// - Parameters:
    ///   - prompt: the tokens of the prompt.
    ///   - generated: the tokens generated so far.
    /// - Throws: ``SelectionError``, ``BackendError``
    package func write(
        _ selection: SlotSelection, slot: Int, prompt: some Sequence<Int32>, generated: some Sequence<Int32>
    ) throws {
        try check(slot)
        let entries = try selection.biasEntries(vocabulary: vocabulary)
        try selection.check()
        if selection.hasPenalties {
            let counts = Tensor.host(.int32, [1, vocabulary])
            counts.mutableHostBytes.initializeMemory(as: UInt8.self, repeating: 0)
            try count(prompt, "prompt", in: counts) { $0 = 1 }
            try count(generated, "generated", in: counts) { $0 += 2 }
            try backend.copy(counts, to: buffers.counts.rows(slot..<slot + 1))
        }
        try writeBias(entries, slot: slot)
        if selection.usesMask {
            staged.masks.mutableHostBytes.initializeMemory(as: UInt8.self, repeating: 0)
            try backend.copy(staged.masks, to: buffers.masks.rows(slot..<slot + 1))
        }
        counting[slot] = selection.hasPenalties
        staged.records.mutableHostBytes.storeBytes(
            of: SelectionRecord(selection, biasCount: entries.bias.count, endCount: entries.ends.count),
            as: SelectionRecord.self)
        try backend.copy(staged.records, to: buffers.records.rows(slot..<slot + 1))
    }

    /// Allows a slot's next token to be one of a set: token v if bit v mod 32 of word v / 32 is set.
    /// - Throws: ``SelectionError`` unless there are ⌈V/32⌉ words; ``BackendError``
    package func writeMask(_ words: UnsafeBufferPointer<Int32>, slot: Int) throws {
        try check(slot)
        let wanted = SelectionState.words(vocabulary)
        guard words.count == wanted else {
            throw SelectionError(field: "mask", expected: "\(wanted) words", found: "\(words.count)")
        }
        staged.masks.mutableHostBytes.copyMemory(from: UnsafeRawBufferPointer(words))
        try backend.copy(staged.masks, to: buffers.masks.rows(slot..<slot + 1))
    }

    /// Whether the tokens of a slot are counted.
    package func isCounting(slot: Int) -> Bool { counting[slot] }

    /// Takes back that a token of a slot with penalties was counted.
    /// - Throws: ``SelectionError``, ``BackendError``
    package func uncount(_ token: Int32, slot: Int) throws {
        try check(slot)
        let counts = Tensor.host(.int32, [1, vocabulary])
        let row = buffers.counts.rows(slot..<slot + 1)
        try backend.read(row, into: counts.mutableHostBytes)
        guard token >= 0 && Int(token) < vocabulary else {
            throw SelectionError.token(token, in: "counts", vocabulary: vocabulary)
        }
        counts.mutableHostElements(Int32.self)[Int(token)] -= 2
        try backend.copy(counts, to: row)
    }

    private func check(_ slot: Int) throws(SelectionError) {
        guard slot >= 0 && slot < slots else {
            throw SelectionError(field: "slot", expected: "0 ..< \(slots)", found: "\(slot)")
        }
    }

    private func count(
        _ tokens: some Sequence<Int32>, _ field: String, in counts: Tensor, _ change: (inout Int32) -> Void
    ) throws(SelectionError) {
        let counts = counts.mutableHostElements(Int32.self)
        for token in tokens {
            guard token >= 0 && token < counts.count else { throw .token(token, in: field, vocabulary: vocabulary) }
            change(&counts[Int(token)])
        }
    }

    private func writeBias(_ entries: SlotSelection.BiasEntries, slot: Int) throws {
        guard !entries.isEmpty else { return }
        let tokens = staged.biasTokens.mutableHostElements(Int32.self)
        let values = staged.biasValues.mutableHostElements(Float.self)
        for (index, entry) in entries.bias.enumerated() { (tokens[index], values[index]) = (entry.token, entry.value) }
        for (index, token) in entries.ends.enumerated() {
            (tokens[entries.bias.count + index], values[entries.bias.count + index]) = (token, -.infinity)
        }
        // Whole rows: a part of a row has no view, and 8 KB more are no matter.
        let used = entries.bias.count + entries.ends.count
        tokens[used...].update(repeating: 0)
        values[used...].update(repeating: 0)
        try backend.copy(staged.biasTokens, to: buffers.biasTokens.rows(slot..<slot + 1))
        try backend.copy(staged.biasValues, to: buffers.biasValues.rows(slot..<slot + 1))
    }
}

/// A record as kernels read it: the same fields in the same order as `nibble_selection_record`.
struct SelectionRecord: BitwiseCopyable {
    var temperature: Float
    var topP: Float
    var minP: Float
    var repetitionPenalty: Float
    var presencePenalty: Float
    var frequencyPenalty: Float
    var topK: Int32
    var minimumTokens: Int32
    var seed: UInt64
    var stream: UInt64
    var biasCount: Int32
    var endCount: Int32
    /// Bit 0: counts tokens and applies penalties. Bit 1: applies the mask.
    var flags: Int32
    var unused: Int32 = 0

    init(_ selection: SlotSelection, biasCount: Int, endCount: Int) {
        // Logits divided by less than this overflow. The limit of sampling at falling temperatures is the greedy choice.
        temperature = selection.temperature < 1e-30 ? 0 : selection.temperature
        topP = selection.topP
        minP = selection.minP
        repetitionPenalty = selection.repetitionPenalty
        presencePenalty = selection.presencePenalty
        frequencyPenalty = selection.frequencyPenalty
        topK = Int32(clamping: selection.topK)
        minimumTokens = Int32(clamping: selection.minimumTokens)
        seed = selection.seed
        stream = selection.stream
        self.biasCount = Int32(biasCount)
        self.endCount = Int32(endCount)
        flags = (selection.hasPenalties ? 1 : 0) | (selection.usesMask ? 2 : 0)
    }
}
