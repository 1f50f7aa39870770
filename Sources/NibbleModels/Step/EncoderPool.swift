import NibbleCore

/// Encoder outputs of the sequences in an executor's slots. Equal inputs are encoded once, also one after another: an output
/// stays until its place is needed.
final class EncoderPool {
    let cross: CrossAttentionCache
    private let encoder: TransformerStack
    private let pass: EncoderPass
    private let vocabularySize: Int
    private let maximumLength: Int
    private var entries: [Entry]
    private var entryOfSlot: [Int?]
    private var uses = 0

    /// What must be equal for two encoder outputs to be equal.
    struct Input: Equatable {
        var tokens: [Int32] = []
        var adapters: AdapterWeights = [:]
    }

    private struct Entry {
        var input = Input()
        var references = 0
        /// When it was last asked for.
        var lastUse = 0
    }

    /// Places for as many inputs as there are slots, so that a sequence in a slot always finds one.
    init(_ model: LanguageModel, _ encoder: TransformerStack, _ shape: SessionShape, maximumLength: Int) throws {
        self.encoder = encoder
        self.maximumLength = maximumLength
        vocabularySize = model.vocabularySize
        cross = try CrossAttentionCache(
            model, entries: shape.rows, maximumLength: maximumLength, entryOfRow: Array(0..<shape.rows),
            tokens: shape.chunkTokens, format: shape.cacheFormat)
        pass = try EncoderPass(
            encoder, model, tokens: maximumLength, rows: 1, entries: shape.rows,
            blocksPerInput: KeyValueGeometry.blocks(for: maximumLength))
        entries = Array(repeating: Entry(), count: shape.rows)
        entryOfSlot = Array(repeating: nil, count: shape.rows)
    }

    /// Lets a slot attend to the encoder's output for `input`, which is computed unless it is still there.
    /// - Throws: ``SessionError/capacityExceeded(row:length:adding:capacity:)`` if it is too long; ``ModelError``.
    func attach(slot: Int, to input: Input) throws {
        guard !input.tokens.isEmpty else { throw ModelError.encoderInputsMissing }
        guard input.tokens.count <= maximumLength else {
            throw SessionError.capacityExceeded(row: slot, length: 0, adding: input.tokens.count, capacity: maximumLength)
        }
        if let old = entryOfSlot[slot] { entries[old].references -= 1 }
        entryOfSlot[slot] = nil
        let entry = try find(input)
        uses += 1
        entries[entry].references += 1
        entries[entry].lastUse = uses
        entryOfSlot[slot] = entry
        cross.attach(row: slot, to: entry)
    }

    private func find(_ input: Input) throws -> Int {
        if let known = entries.firstIndex(where: { $0.input == input }) { return known }
        let free = entries.indices.filter { entries[$0].references == 0 }
        guard let entry = free.min(by: { entries[$0].lastUse < entries[$1].lastUse }) else {
            preconditionFailure("each slot holds one encoder input at most")
        }
        let checked = try EncoderInputs([input.tokens], of: encoder, vocabularySize: vocabularySize)
        entries[entry].input = Input()
        try pass.setAdapters(input.adapters, entry: entry)
        try cross.encode(checked, firstEntry: entry, pass)
        entries[entry].input = input
        return entry
    }
}
