import NibbleCore

/// Fixed rows over a ``DecoderPass``: their block tables, tokens, and the encoder's keys and values where there are any.
final class DecoderSession: DecodingSession {
    let rows: Int
    let capacity: Int
    private let model: LanguageModel
    private let pass: DecoderPass
    private let cross: CrossAttentionCache?
    private var tables: BlockTables
    private var plan = FeedPlan()
    private var selections: RowSelections
    /// By row: the states that the chunk reads and writes.
    private var stateBlocks: [StateTable.Blocks?]
    /// The rows' lengths before the feed.
    private var lengthsBefore: [Int]

    init(_ model: LanguageModel, _ request: SessionRequest) throws {
        guard request.encoderInputs.isEmpty == (model.encoder == nil) else {
            throw model.encoder == nil ? ModelError.notEncoderDecoder : ModelError.encoderInputsMissing
        }
        self.model = model
        rows = request.rows
        capacity = request.capacity
        let pass = try model.takePass(DecoderSession.shape(model, request))
        self.pass = pass
        let adapters = request.adapters ?? [model.adapters.active]
        guard adapters.count == 1 || adapters.count == rows else {
            throw SessionError.rowOutOfRange(row: adapters.count, rows: rows)
        }
        for row in 0..<rows { try pass.runner.adapters.set(adapters[adapters.count == 1 ? 0 : row], slot: row) }
        tables = BlockTables(pass.shape.layout, rows: rows, capacity: pass.shape.context)
        cross = try model.encoder.map {
            try CrossAttentionCache(model, encoder: $0, request, adapters, tokens: pass.shape.chunkTokens)
        }
        selections = RowSelections(rows: rows)
        stateBlocks = Array(repeating: nil, count: rows)
        lengthsBefore = Array(repeating: 0, count: rows)
        interruption = request.interruption
    }

    deinit {
        try? pass.dropAhead()
        pass.runner.interruption = nil
        model.giveBack(pass)
    }

    private static func shape(_ model: LanguageModel, _ request: SessionRequest) -> SessionShape {
        let (rows, capacity) = (request.rows, request.capacity)
        let context = min(capacity, model.options.initialCapacity, request.initialCapacity ?? capacity)
        let tokens = CacheBlocks.chunkTokens(model.options.chunkTokens, rows: rows, capacity: capacity)
        let layout = CacheLayout(
            model.decoder.description.layers, rows: rows, capacity: context, limit: capacity, chunkTokens: tokens)
        return SessionShape(
            rows: rows, chunkTokens: tokens, context: context, layout: layout,
            cacheFormat: model.options.cacheFormat(request))
    }

    var vocabularySize: Int { model.vocabularySize }

    var cacheByteCount: Int { pass.cacheByteCount + (cross?.cacheByteCount ?? 0) }

    var interruption: (@Sendable () throws -> Void)? {
        get { pass.runner.interruption }
        set { pass.runner.interruption = newValue }
    }

    func length(ofRow row: Int) -> Int { tables.lengths[row] }

    func tokens(ofRow row: Int) -> [Int32] { selections.tokens(row) }

    /// Memory follows what rows hold, not what they may come to hold: it doubles when a feed does not fit.
    private func makeRoom(for inputs: [RowTokens]) throws {
        let needed = inputs.reduce(0) { max($0, tables.lengths[$1.row] + $1.tokens.count) }
        let context = pass.shape.context
        guard needed > context else { return }
        let larger = min(max(needed, 2 * context), capacity)
        let layout = CacheLayout(
            model.decoder.description.layers, rows: rows, capacity: larger, limit: capacity,
            chunkTokens: pass.shape.chunkTokens)
        try pass.grow(layout, context: larger)
        tables.grow(layout, capacity: larger)
    }
}

// MARK: Feeding

extension DecoderSession {
    func feed<Result>(
        _ inputs: [RowTokens], logits selection: LogitsSelection, _ body: (LogitsBatch) throws -> Result
    ) throws -> Result {
        try validate(inputs)
        try pass.dropAhead()
        try makeRoom(for: inputs)
        let count =
            switch selection {
            case .last: inputs.count
            case .all: inputs.reduce(0) { $0 + $1.tokens.count }
            }
        let target = try pass.hostLogits(rows: count, isApart: selection == .all)
        return try restoringOnError(inputs) {
            var written = 0
            plan.fill(inputs, chunkTokens: pass.shape.chunkTokens)
            for index in plan.chunks {
                try pause(before: index)
                let image = try write(plan.chunk(index), inputs, wanted: selection == .all ? .all : .last)
                try pass.run(image, cross)
                guard image.selected > 0 else { continue }
                try pass.readLogits(image.selected, at: written, of: target)
                written += image.selected
            }
            try model.head.backend.synchronize()
            return try body(
                LogitsBatch(
                    rows: count, vocabularySize: vocabularySize, values: target.mutableHostElements(Float.self)))
        }
    }

    func feed(_ inputs: [RowTokens], sampling: SamplingParameters) throws -> [Int32] {
        try validate(inputs)
        try makeRoom(for: inputs)
        return try restoringOnError(inputs) { try sample(inputs, sampling) }
    }

    private func sample(_ inputs: [RowTokens], _ sampling: SamplingParameters) throws -> [Int32] {
        try interruption?()
        plan.fill(inputs, chunkTokens: pass.shape.chunkTokens)
        if !isAhead(inputs, sampling) { try pass.dropAhead() }
        var tokens: [Int32] = []
        var written = 0
        for index in plan.chunks {
            try pause(before: index)
            let image = try write(
                plan.chunk(index), inputs, wanted: .last, counter: Int(truncatingIfNeeded: sampling.step))
            for row in plan.finishedRows { try selections.prepare(sampling, row: row, in: pass.selection) }
            if image.call.launchLength != nil {
                tokens = try pass.step(image, cross)
            } else {
                try pass.choose(image, cross, at: written)
                written += image.selected
            }
        }
        if written > 0 { tokens = try pass.readChosen(written) }
        for (input, token) in zip(inputs.lazy.filter { !$0.tokens.isEmpty }, tokens) {
            selections.noteChosen(token, row: input.row)
        }
        return tokens
    }

    /// Whether the device has already begun with what these inputs ask for.
    private func isAhead(_ inputs: [RowTokens], _ sampling: SamplingParameters) -> Bool {
        inputs.allSatisfy { input in
            guard input.tokens.count == 1, let token = input.tokens.first else { return false }
            let row = StepAhead.Row(
                token: token, position: tables.lengths[input.row], counter: Int(truncatingIfNeeded: sampling.step))
            return pass.isAhead(row, slot: input.row) && selections.holds(sampling, row: input.row)
        }
    }

    /// Runs a feed. If it fails, restores what rows held before.
    private func restoringOnError<Result>(_ inputs: [RowTokens], _ feed: () throws -> Result) throws -> Result {
        for row in 0..<rows { lengthsBefore[row] = tables.lengths[row] }
        do {
            return try feed()
        } catch {
            try? pass.dropAhead()
            for row in Set(inputs.map(\.row)) {
                let length = tables.longest(row, upTo: lengthsBefore[row])
                tables.truncate(row, to: length)
                selections.truncate(row, to: length)
            }
            throw error
        }
    }

    /// Waits for the devices every few chunks. Otherwise the host would have enqueued everything before an interruption.
    private func pause(before chunk: Int) throws {
        let interval = pass.shape.chunkTokens > SessionOptions.defaultChunkTokens ? 2 : 4
        guard interruption != nil, chunk > 0, chunk % interval == 0 else { return }
        for backend in model.decoder.backends { try backend.synchronize() }
    }

    private func validate(_ inputs: [RowTokens]) throws {
        for input in inputs {
            guard input.row >= 0, input.row < rows else { throw SessionError.rowOutOfRange(row: input.row, rows: rows) }
            let length = tables.lengths[input.row]
            guard length + input.tokens.count <= capacity else {
                throw SessionError.capacityExceeded(
                    row: input.row, length: length, adding: input.tokens.count, capacity: capacity)
            }
            try model.decoder.embedding.validate(positions: length + input.tokens.count)
            for token in input.tokens where token < 0 || token >= vocabularySize {
                throw SessionError.tokenOutOfRange(token: token, vocabularySize: vocabularySize)
            }
        }
    }

    /// Makes room for a chunk's tokens and writes their indices.
    private func write(
        _ chunk: ArraySlice<FeedPlan.Segment>, _ inputs: [RowTokens], wanted: CallImage.Wanted, counter: Int = 0
    ) throws -> CallImage {
        tables.releasePassed()
        var copies = BlockTables.Copies()
        for segment in chunk {
            stateBlocks[segment.row] = tables.append(segment.range.count, to: segment.row, copies: &copies)
            selections.append(inputs[segment.input].tokens[segment.range], to: segment.row)
        }
        for (table, copies) in copies.enumerated() { try pass.copyBlocks(copies, table: table) }
        var image = try pass.begin(
            maximumLength: chunk.reduce(0) { max($0, tables.lengths[$1.row]) }, isStep: plan.isStep && wanted == .last)
        for segment in chunk {
            let row = segment.row
            image.addRow(
                inputs[segment.input].tokens[segment.range], start: tables.lengths[row] - segment.range.count,
                wanted: wanted == .all || segment.isLast ? wanted : .none, slot: row, counter: counter)
            for (table, blocks) in tables.tables.enumerated() { image.setBlocks(blocks.blocks[row], table: table) }
            if let blocks = stateBlocks[row] {
                // A step on a device with graphs may be followed by the next one early.
                image.setState(blocks, next: image.call.launchLength == nil ? nil : tables.promiseState(of: row))
            }
        }
        cross?.setRows(chunk.lazy.map(\.row))
        return image
    }
}

// MARK: Rows

extension DecoderSession {
    func gather(_ sources: [Int]) throws {
        for source in sources where source < 0 || source >= rows {
            throw SessionError.rowOutOfRange(row: source, rows: rows)
        }
        guard sources.count == rows else { throw SessionError.rowOutOfRange(row: sources.count, rows: rows) }
        try pass.dropAhead()
        try pass.runner.adapters.gather(sources)
        tables.gather(sources)
        selections.gather(sources)
        cross?.gather(sources)
    }

    func canTruncate(row: Int, to length: Int) -> Bool {
        row >= 0 && row < rows && tables.canTruncate(row, to: max(length, 0))
    }

    func rollBack(row: Int, to length: Int) throws -> Int {
        guard row >= 0, row < rows else { throw SessionError.rowOutOfRange(row: row, rows: rows) }
        let kept = tables.longest(row, upTo: max(length, 0))
        try truncate(row: row, to: kept)
        return kept
    }

    func truncate(row: Int, to length: Int) throws {
        guard row >= 0, row < rows else { throw SessionError.rowOutOfRange(row: row, rows: rows) }
        guard canTruncate(row: row, to: length) else {
            throw SessionError.cannotTruncate(row: row, from: tables.lengths[row], to: length)
        }
        try pass.dropAhead()
        tables.truncate(row, to: max(length, 0))
        selections.truncate(row, to: max(length, 0))
    }
}
