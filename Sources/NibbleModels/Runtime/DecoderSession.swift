import NibbleCore

/// The state of a decoder for some rows: block tables, caches, buffers, and the encoder's keys and values where there are any.
final class DecoderSession: DecodingSession {
    let rows: Int
    let capacity: Int
    /// Tokens of a row that memory is there for. Grows up to ``capacity`` as rows do.
    private(set) var allocatedCapacity: Int
    private let model: LanguageModel
    private let runner: StackRunner
    private let cross: CrossAttentionCache?
    private var tables: BlockTables
    private let chunkTokens: Int
    private var logits: LogitsBuffers
    /// int32 [R]
    private let sampled: Tensor
    private let sets: TokenSets
    /// Captured decode steps, where the whole model runs on one device that has graphs.
    private let graphs: StepGraphs?
    /// The hidden states of the last call whose logits are wanted, and their backend.
    private var chosen: (hidden: Tensor, backend: any Backend)?
    private var plan = FeedPlan()
    /// The rows' lengths before the feed.
    private var lengthsBefore: [Int]

    init(_ model: LanguageModel, _ request: SessionRequest) throws {
        guard request.encoderInputs.isEmpty == (model.encoder == nil) else {
            throw model.encoder == nil ? ModelError.notEncoderDecoder : ModelError.encoderInputsMissing
        }
        self.model = model
        rows = request.rows
        capacity = request.capacity
        allocatedCapacity = min(capacity, model.options.initialCapacity)
        let tokens = CacheBlocks.chunkTokens(model.options.chunkTokens, rows: rows, capacity: capacity)
        chunkTokens = tokens
        let layout = CacheLayout(
            model.decoder.description.layers, rows: rows, capacity: allocatedCapacity, limit: capacity, chunkTokens: tokens)
        tables = BlockTables(layout, rows: rows, capacity: allocatedCapacity)
        let limits = IndexBuffers.Limits(
            tokens: tokens, rows: rows, blocksPerRow: tables.blocksPerRow, tables: layout.windows.count)
        runner = try StackRunner(
            model.decoder, limits: limits, layout: layout, cacheFormat: model.options.cacheFormat(request),
            sharesCache: false, positions: allocatedCapacity, options: model.options, extraBackends: [model.head.backend])
        cross = try model.encoder.map { try CrossAttentionCache(model, encoder: $0, request, tokens: tokens) }
        logits = LogitsBuffers(
            backend: model.head.backend, vocabularySize: model.vocabularySize, rows: rows)
        sampled = try model.head.backend.allocate(.int32, [max(rows, 1)])
        sets = TokenSets(rows: rows, vocabulary: model.vocabularySize, backend: model.head.backend)
        // Uploads of weights cannot be part of a graph.
        let isStreamed = model.decoder.blocks.contains { $0.stream != nil }
        lengthsBefore = Array(repeating: 0, count: rows)
        graphs = isStreamed ? nil : StepGraphs(backends: model.decoder.backends + [model.head.backend])
        runner.interruption = request.interruption
        try reserve()
    }

    var vocabularySize: Int { model.vocabularySize }

    var cacheByteCount: Int {
        runner.caches.reduce(0) { $0 + $1.keys.byteCount + $1.values.byteCount } + (cross?.cacheByteCount ?? 0)
    }

    var interruption: (@Sendable () throws -> Void)? {
        get { runner.interruption }
        set { runner.interruption = newValue }
    }

    func length(ofRow row: Int) -> Int { tables.lengths[row] }

    private func reserve() throws {
        for backend in model.decoder.backends + [model.head.backend] {
            try backend.reserve(
                model.workspaceRequest(backend, tokens: chunkTokens, rows: rows, context: allocatedCapacity))
        }
    }
}

// MARK: Growing

extension DecoderSession {
    /// Memory follows what rows hold, not what they may come to hold: it doubles when a feed does not fit.
    private func makeRoom(for inputs: [RowTokens]) throws {
        let needed = inputs.reduce(0) { max($0, tables.lengths[$1.row] + $1.tokens.count) }
        guard needed > allocatedCapacity else { return }
        let larger = min(max(needed, 2 * allocatedCapacity), capacity)
        let layout = CacheLayout(
            model.decoder.description.layers, rows: rows, capacity: larger, limit: capacity, chunkTokens: chunkTokens)
        graphs?.removeAll()
        try runner.grow(layout, blocksPerRow: max(KeyValueGeometry.blocks(for: larger), 1), positions: larger)
        tables.grow(layout, capacity: larger)
        allocatedCapacity = larger
        try reserve()
    }
}

// MARK: Feeding

extension DecoderSession {
    func feed<Result>(
        _ inputs: [RowTokens], logits selection: LogitsSelection, _ body: (LogitsBatch) throws -> Result
    ) throws -> Result {
        try validate(inputs)
        try makeRoom(for: inputs)
        let count =
            switch selection {
            case .last: inputs.count
            case .all: inputs.reduce(0) { $0 + $1.tokens.count }
            }
        let target = selection == .last ? try logits.host(rows: count) : logits.output(rows: count)
        return try restoringOnError(inputs) {
            var written = 0
            plan.fill(inputs, chunkTokens: chunkTokens)
            for index in plan.chunks {
                try pause(before: index)
                let selected = try enqueue(plan.chunk(index), inputs, selection: selection)
                guard selected > 0 else { continue }
                try logits.compute(rows: selected, at: written, of: target) { range, output in
                    try self.project(range, into: output)
                }
                written += selected
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
        plan.fill(inputs, chunkTokens: chunkTokens)
        if try stepByGraph(inputs, sampling) { return try readSampled(inputs.count) }
        var written = 0
        var call = BatchShape(tokens: 0, rows: 0, maximumQueryLength: 0, maximumLength: 0)
        let device = try logits.device(rows: inputs.count)
        for index in plan.chunks {
            try pause(before: index)
            let chunk = plan.chunk(index)
            (call.rows, call.tokens) = (chunk.count, chunk.count)
            let selected = try enqueue(chunk, inputs, selection: .last, counter: sampling.step)
            guard selected > 0 else { continue }
            try project(0..<selected, into: device.rows(written..<written + selected))
            try sets.prepare(sampling, rows: plan.finishedRows, addsLatest: plan.isStep)
            let latest = plan.isStep ? runner.indices(call, on: model.head.backend).tokens : nil
            try select(plan.finishedRows, call, sampling, latest: latest, from: written, of: device)
            written += selected
        }
        return try readSampled(inputs.count)
    }

    /// Runs a feed. If it fails, restores what rows held before.
    private func restoringOnError<Result>(_ inputs: [RowTokens], _ feed: () throws -> Result) throws -> Result {
        for row in 0..<rows { lengthsBefore[row] = tables.lengths[row] }
        do {
            return try feed()
        } catch {
            for row in Set(inputs.map(\.row)) {
                let length = tables.canTruncate(row, to: lengthsBefore[row]) ? lengthsBefore[row] : 0
                tables.truncate(row, to: length)
                sets.truncate(row, to: length)
            }
            throw error
        }
    }

    /// Waits for the devices every few chunks. Otherwise the host would have enqueued everything before an interruption.
    private func pause(before chunk: Int) throws {
        guard interruption != nil, chunk > 0, chunk % 4 == 0 else { return }
        for backend in model.decoder.backends { try backend.synchronize() }
    }

    private func readSampled(_ count: Int) throws -> [Int32] {
        var tokens = [Int32](repeating: 0, count: count)
        try tokens.withUnsafeMutableBytes { try model.head.backend.read(sampled.viewed(as: Shape(count)), into: $0) }
        return tokens
    }

    /// Runs a decode step (one token a row, everything on one device) as one captured graph. Returns `false` where the step
    /// has to be enqueued operation by operation.
    private func stepByGraph(_ inputs: [RowTokens], _ sampling: SamplingParameters) throws -> Bool {
        guard let graphs, plan.isStep, plan.chunks.count == 1 else { return false }
        let logits = try logits.device(rows: inputs.count)
        var (call, selected) = try place(plan.chunk(0), inputs, selection: .last, counter: sampling.step)
        let rows = plan.finishedRows
        try sets.prepare(sampling, rows: rows, addsLatest: true)
        call.launchLength = graphs.launchLength(call.maximumLength, capacity: allocatedCapacity)
        let key = StepGraphs.Key(rows: rows, call: call, rotary: runner.rotaryVariants(call), sampling: sampling)
        try graphs.step(key) {
            try [logits] + self.runner.rotaryTensors(call)
        } _: {
            try self.run(call, selected: selected)
            try self.project(0..<selected, into: logits)
            let latest = self.runner.indices(call, on: self.model.head.backend).tokens
            try self.select(rows, call, sampling, latest: latest, from: 0, of: logits)
        }
        return true
    }

    /// Selects a token for each row. Row r draws from stream `firstStream + r`; consecutive rows share a call.
    private func select(
        _ rows: [Int], _ call: BatchShape, _ sampling: SamplingParameters, latest: Tensor?, from offset: Int,
        of logits: Tensor
    ) throws {
        let backend = model.head.backend
        var start = 0
        while start < rows.count {
            var end = start + 1
            while end < rows.count, rows[end] == rows[end - 1] + 1 { end += 1 }
            var parameters = sampling
            parameters.firstStream += UInt64(rows[start])
            let range = offset + start..<offset + end
            let masks = sets.masks(sampling, rows: rows[start]..<rows[end - 1] + 1, latest: latest?.rows(start..<end))
            try backend.select(
                logits.rows(range), parameters, masks: masks, counters: runner.counters(call, on: backend).rows(0..<end - start),
                into: sampled.rows(range))
            start = end
        }
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

    /// Runs the blocks over one chunk and gathers the hidden states whose logits are wanted. Returns how many those are.
    private func enqueue(
        _ chunk: ArraySlice<FeedPlan.Segment>, _ inputs: [RowTokens], selection: LogitsSelection, counter: UInt64 = 0
    ) throws -> Int {
        let (call, selected) = try place(chunk, inputs, selection: selection, counter: counter)
        try run(call, selected: selected)
        return selected
    }

    /// Makes room for a chunk's tokens and uploads their indices to every device.
    private func place(
        _ chunk: ArraySlice<FeedPlan.Segment>, _ inputs: [RowTokens], selection: LogitsSelection, counter: UInt64
    ) throws -> (call: BatchShape, selected: Int) {
        tables.releasePassed()
        var copies = BlockTables.Copies()
        let placed = fillImage(chunk, inputs, selection: selection, counter: counter, copies: &copies)
        try copyBlocks(copies)
        try runner.upload()
        try cross?.prepare(rows: chunk.map(\.row), image: runner.image, tokens: placed.call.tokens)
        return placed
    }

    /// Enqueues the blocks over tokens whose indices are uploaded. Leaves the hidden states whose logits are wanted in
    /// ``chosen``.
    private func run(_ call: BatchShape, selected: Int) throws {
        let (hidden, backend) = try runner.run(call, cross: cross.map { state in { state.context($0, call, on: $1) } })
        guard selected > 0, selected < call.tokens else {
            chosen = (hidden, backend)
            return
        }
        let gathered = runner.buffers(on: backend).gathered(selected)
        try backend.gatherRows(hidden, runner.selected(selected, on: backend), into: gathered)
        chosen = (gathered, backend)
    }

    private func fillImage(
        _ chunk: ArraySlice<FeedPlan.Segment>, _ inputs: [RowTokens], selection: LogitsSelection, counter: UInt64,
        copies: inout BlockTables.Copies
    ) -> (call: BatchShape, selected: Int) {
        let image = runner.image
        let (tokens, positions, tokenRows) = (image.tokens, image.positions, image.rows)
        let (offsets, lengths, counters) = (image.queryOffsets, image.lengths, image.counters)
        let selectedTokens = image.selected
        var count = 0
        var selected = 0
        var call = BatchShape(tokens: 0, rows: chunk.count, maximumQueryLength: 0, maximumLength: 0)
        for (index, segment) in chunk.enumerated() {
            let row = segment.row
            let start = tables.lengths[row]
            tables.append(segment.range.count, to: row, copies: &copies)
            sets.append(inputs[segment.input].tokens[segment.range], to: row)
            offsets[index] = Int32(count)
            for (step, source) in segment.range.enumerated() {
                tokens[count] = inputs[segment.input].tokens[source]
                positions[count] = Int32(start + step)
                tokenRows[count] = Int32(index)
                if selection == .all || (segment.isLast && source == segment.range.upperBound - 1) {
                    selectedTokens[selected] = Int32(count)
                    selected += 1
                }
                count += 1
            }
            lengths[index] = Int32(tables.lengths[row])
            counters[index] = Int32(truncatingIfNeeded: counter)
            tables.fill(image, at: index, row: row)
            call.maximumQueryLength = max(call.maximumQueryLength, segment.range.count)
            call.maximumLength = max(call.maximumLength, tables.lengths[row])
        }
        offsets[chunk.count] = Int32(count)
        call.tokens = count
        return (call, selected)
    }

    private func copyBlocks(_ copies: BlockTables.Copies) throws {
        guard !copies.isEmpty else { return }
        for (table, copies) in Dictionary(grouping: copies, by: \.table) {
            let pairs = Tensor.host(copies.flatMap { [$0.from, $0.to] }, .int32, [copies.count, 2])
            var local: [Device: Tensor] = [:]
            for (index, block) in model.decoder.blocks.enumerated() where runner.table(ofLayer: index) == table {
                let backend = block.backend
                if local[backend.device] == nil {
                    let tensor = try backend.allocate(.int32, pairs.shape)
                    try backend.copy(pairs, to: tensor)
                    local[backend.device] = tensor
                }
                if let pairs = local[backend.device] { try backend.copyBlocks(runner.caches[index], pairs: pairs) }
            }
        }
    }

    /// Final norm and head over some of the chosen hidden states. Each may be projected once only.
    private func project(_ range: Range<Int>, into output: Tensor) throws {
        guard let chosen else { preconditionFailure("logits were asked for before anything ran") }
        let (finished, backend) = try runner.finish(chosen.hidden.rows(range), on: chosen.backend)
        try model.head(try runner.move(finished, from: backend, to: model.head.backend), into: output)
    }
}

// MARK: Rows

extension DecoderSession {
    func gather(_ sources: [Int]) throws {
        for source in sources where source < 0 || source >= rows {
            throw SessionError.rowOutOfRange(row: source, rows: rows)
        }
        guard sources.count == rows else { throw SessionError.rowOutOfRange(row: sources.count, rows: rows) }
        tables.gather(sources)
        sets.gather(sources)
        cross?.gather(sources)
    }

    func canTruncate(row: Int, to length: Int) -> Bool {
        row >= 0 && row < rows && tables.canTruncate(row, to: max(length, 0))
    }

    func truncate(row: Int, to length: Int) throws {
        guard row >= 0, row < rows else { throw SessionError.rowOutOfRange(row: row, rows: rows) }
        guard canTruncate(row: row, to: length) else {
            throw SessionError.cannotTruncate(row: row, from: tables.lengths[row], to: length)
        }
        tables.truncate(row, to: max(length, 0))
        sets.truncate(row, to: max(length, 0))
    }
}
