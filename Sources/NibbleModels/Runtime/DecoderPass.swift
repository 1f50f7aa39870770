import NibbleCore

/// Runs calls of a decoder from written indices to logits or chosen tokens. It owns what is kept between calls: caches, buffers,
/// the records by which tokens are chosen, and captured steps.
///
/// Who uses it decides which rows a call has and where their keys and values lie.
final class DecoderPass {
    unowned let model: LanguageModel
    let runner: StackRunner
    let selection: SelectionState
    private(set) var shape: SessionShape
    var logits: LogitsBuffers
    /// int32 [R]
    let sampled: Tensor
    /// Where the whole model runs on devices that have graphs.
    let graphs: StepGraphs?
    /// int32 [R]: the slots' latest tokens, where they are embedded.
    let latest: Tensor
    /// See ``step(_:_:mayGoAhead:)``.
    var ahead: StepAhead
    /// Of the tokens of two steps: one is waited for while the other runs. The one at ``current`` was begun last.
    let reads: [any DeferredRead]
    var current = 0
    /// The hidden states of the last call whose logits are wanted, and their backend.
    private var chosen: (hidden: Tensor, backend: any Backend)?

    init(_ model: LanguageModel, _ shape: SessionShape) throws {
        self.model = model
        self.shape = shape
        let head = model.head.backend
        // Uploads of weights cannot be part of a graph.
        let isStreamed = model.decoder.blocks.contains { $0.stream != nil }
        graphs = isStreamed ? nil : StepGraphs(backends: model.decoder.backends + [head])
        runner = try StackRunner(
            model.decoder, limits: shape.limits, layout: shape.layout.adding(blocks: graphs == nil ? 0 : 1),
            cacheFormat: shape.cacheFormat, sharesCache: false, positions: shape.context, options: model.options,
            adapters: model.adapters, extraBackends: [head])
        logits = LogitsBuffers(backend: head, vocabularySize: model.vocabularySize, rows: shape.rows)
        sampled = try head.allocate(.int32, [max(shape.rows, 1)])
        ahead = StepAhead(slots: shape.rows)
        reads = try graphs == nil ? [] : (0..<2).map { _ in try head.makeDeferredRead(byteCount: 4 * max(shape.rows, 1)) }
        selection = try SelectionState(slots: shape.rows, vocabulary: model.vocabularySize, backend: head)
        let embedding = model.decoder.embedding.backend
        latest = try head === embedding ? selection.buffers.latest : embedding.allocate(.int32, [max(shape.rows, 1)])
        try reserve()
    }

    var head: any Backend { model.head.backend }

    var cacheByteCount: Int {
        runner.caches.indices.reduce(0) { sum, layer in
            guard model.decoder.cacheLayer(of: layer) == layer else { return sum }
            return sum + runner.caches[layer].byteCount
        }
    }

    private func reserve() throws {
        for backend in model.decoder.backends + [head] {
            try backend.reserve(
                model.workspaceRequest(backend, tokens: shape.chunkTokens, rows: shape.rows, context: shape.context))
        }
    }

    /// Makes room for longer rows: `context` positions each, in the blocks of `layout`. Blocks keep what they hold.
    func grow(_ layout: CacheLayout, context: Int) throws {
        try dropAhead()
        var larger = shape
        (larger.layout, larger.context) = (layout, context)
        graphs?.removeAll()
        try runner.grow(
            layout.adding(blocks: graphs == nil ? 0 : 1), blocksPerRow: larger.blocksPerRow, positions: context)
        shape = larger
        try reserve()
    }

    /// Adapters may have come or gone since the last call. Graphs know the addresses of their matrices.
    private func followAdapters() throws {
        guard try runner.adapters.update() else { return }
        try dropAhead()
        graphs?.removeAll()
    }

    // MARK: Calls

    /// Begins to write a call.
    /// - Parameters:
    ///   - maximumLength: the most keys that one of its rows will have.
    ///   - rotaryLength: see ``BatchShape/rotaryLength``.
    ///   - isStep: whether every row has one token and wants the next one chosen.
    func begin(maximumLength: Int, rotaryLength: Int? = nil, isStep: Bool) throws -> CallImage {
        try followAdapters()
        var call = BatchShape(tokens: 0, rows: 0, maximumQueryLength: 0, maximumLength: maximumLength)
        call.rotaryLength = rotaryLength
        if isStep { call.launchLength = graphs?.launchLength(maximumLength, capacity: shape.context) }
        call.tableStride = min(KeyValueGeometry.blocks(for: call.launchLength ?? maximumLength), shape.blocksPerRow)
        if isStep, shape.layout.stateTable != nil { call.stateStride = 2 }
        return CallImage(runner.image, call, blocksPerRow: shape.blocksPerRow)
    }

    /// Runs the blocks over a call's tokens.
    func run(_ image: CallImage, _ cross: CrossAttentionCache?) throws {
        try upload(image, cross)
        try enqueue(image, cross)
    }

    func upload(_ image: CallImage, _ cross: CrossAttentionCache?) throws {
        try runner.upload(tableCount: image.tableCount, stateCount: image.stateCount)
        try cross?.upload(image.call, image: runner.image)
    }

    /// Leaves the hidden states whose logits are wanted in ``chosen``.
    func enqueue(_ image: CallImage, _ cross: CrossAttentionCache?) throws {
        _ = try runner.run(image.call, cross: crossContext(image.call, cross))
        try collect(image)
    }

    func crossContext(_ call: BatchShape, _ cross: CrossAttentionCache?) -> StackRunner.CrossContext? {
        cross.map { state in { state.context($0, call, on: $1) } }
    }

    /// Gathers the hidden states whose logits are wanted.
    func collect(_ image: CallImage) throws {
        let call = image.call
        let (hidden, backend) = runner.output(call)
        guard image.selected > 0, image.selected < call.tokens else {
            chosen = (hidden, backend)
            return
        }
        let gathered = runner.buffers(on: backend).gathered(image.selected)
        try backend.gatherRows(
            hidden, runner.indexBuffers(on: backend).selected(image.selected), into: gathered)
        chosen = (gathered, backend)
    }

    /// Final norm and head over some of the chosen hidden states. Each may be projected once only.
    func project(_ range: Range<Int>, into output: Tensor) throws {
        guard let chosen else { preconditionFailure("logits were asked for before anything ran") }
        let (finished, backend) = try runner.finish(chosen.hidden.rows(range), on: chosen.backend, selected: range)
        try model.head(
            try runner.move(finished, from: backend, to: head), adapters: runner.selectedAdapters(range, on: head), into: output)
    }

    // MARK: Logits

    /// A host tensor, float32 [rows, V], for logits of calls to come; valid until the next one is asked for.
    /// - Parameter isApart: whether more rows than the session has may be asked for.
    func hostLogits(rows: Int, isApart: Bool) throws -> Tensor {
        isApart ? logits.output(rows: rows) : try logits.host(rows: rows)
    }

    /// Stores the logits of the last call's selected tokens from row `offset` of the host tensor `target`.
    func readLogits(_ count: Int, at offset: Int, of target: Tensor) throws {
        try logits.compute(rows: count, at: offset, of: target) { range, output in try self.project(range, into: output) }
    }

    /// The final hidden states of the last call's selected tokens, float32 [count, E] on the host.
    func readHidden(_ count: Int) throws -> Tensor {
        guard let chosen else { preconditionFailure("hidden states were asked for before anything ran") }
        let (finished, backend) = try runner.finish(chosen.hidden.rows(0..<count), on: chosen.backend, selected: 0..<count)
        var source = finished
        if finished.dtype != .float32 {
            source = try backend.allocate(.float32, finished.shape)
            try backend.convert(finished, to: source)
        }
        let host = Tensor.host(.float32, finished.shape)
        try backend.read(source, into: host.mutableHostBytes)
        return host
    }

    // MARK: Choosing

    /// Runs a call and chooses a token after each selected one, but for steps that have graphs: see
    /// ``step(_:_:mayGoAhead:)``.
    /// - Parameter offset: the place among the chosen tokens where these begin.
    func choose(
        _ image: CallImage, _ cross: CrossAttentionCache?, at offset: Int = 0, beforeChoosing: (() -> Void)? = nil
    ) throws {
        try run(image, cross)
        beforeChoosing?()
        guard image.selected > 0 else { return }
        let output = try logits.device(rows: image.selected)
        try project(0..<image.selected, into: output)
        try select(image.selected, from: output, at: offset)
    }

    func select(_ count: Int, from logits: Tensor, at offset: Int) throws {
        let indices = runner.indexBuffers(on: head)
        try head.select(
            logits, selection, slots: indices.slots(count), counters: indices.counters(count),
            into: sampled.rows(offset..<offset + count))
    }

    /// As ``choose(_:at:_:)``, and answers with probabilities where `counts` says how many of the most probable tokens are
    /// wanted. One entry for each selected token.
    func chooseWithScores(
        _ image: CallImage, _ counts: [Int?], _ cross: CrossAttentionCache? = nil, beforeChoosing: (() -> Void)? = nil
    ) throws -> [StepAnswer] {
        let scored = counts.indices.filter { counts[$0] != nil }
        let places = runner.image.scored
        for (place, index) in scored.enumerated() { places[place] = Int32(index) }
        try run(image, cross)
        beforeChoosing?()
        let output = try logits.device(rows: image.selected)
        try project(0..<image.selected, into: output)
        // Choosing changes logits.
        let indices = runner.indexBuffers(on: head).scored(scored.count)
        let raw = try head.allocate(.float32, [scored.count, model.vocabularySize])
        try head.gatherRows(output, indices, into: raw)
        try select(image.selected, from: output, at: 0)
        let tokens = try readChosen(image.selected)
        let scores = try scores(raw, scored.map { tokens[$0] }, count: scored.compactMap { counts[$0] }.max() ?? 0)
        var answers = tokens.map { StepAnswer(token: $0) }
        for (place, index) in scored.enumerated() {
            answers[index].scores = scores[place]
            answers[index].scores?.top = Array(scores[place].top.prefix(counts[index] ?? 0))
        }
        return answers
    }

    /// Probabilities of `chosen` and of the `count` most probable tokens by raw logits [n, V].
    private func scores(_ logits: Tensor, _ chosen: [Int32], count: Int) throws -> [TokenScores] {
        let rows = chosen.count
        let tokens = try head.allocate(.int32, [rows])
        try head.copy(.host(chosen.map { max($0, 0) }, .int32, [rows]), to: tokens)
        let values = try head.allocate(.float32, [rows, 2 + count])
        let ids = try head.allocate(.int32, [rows, max(count, 1)])
        try head.scores(logits, chosen: tokens, count: count, values: values, ids: ids)
        let (hostValues, hostIds) = (Tensor.host(.float32, values.shape), Tensor.host(.int32, ids.shape))
        try head.read(values, into: hostValues.mutableHostBytes)
        try head.read(ids, into: hostIds.mutableHostBytes)
        return (0..<rows).map { row in
            let value = { hostValues.hostElements(Float.self)[row * (2 + count) + $0] }
            let id = { hostIds.hostElements(Int32.self)[row * max(count, 1) + $0] }
            return TokenScores(
                chosen: value(1), top: (0..<count).map { TokenScore(token: id($0), logProbability: value(2 + $0)) })
        }
    }

    /// The first `count` chosen tokens, or negative numbers where none could be chosen. Waits for the device.
    func readChosen(_ count: Int) throws -> [Int32] {
        var tokens = [Int32](repeating: 0, count: count)
        try tokens.withUnsafeMutableBytes { try head.read(sampled.viewed(as: Shape(count)), into: $0) }
        return tokens
    }

    // MARK: Blocks

    /// Copies blocks within the caches of one table's layers.
    func copyBlocks(_ copies: [BlockCopy], table: Int = 0) throws {
        guard !copies.isEmpty else { return }
        guard table != runner.stateTable else { return try copyStates(copies) }
        let pairs = Tensor.host(copies.flatMap { [$0.source, $0.target] }, .int32, [copies.count, 2])
        var local: [Device: Tensor] = [:]
        for (index, block) in model.decoder.blocks.enumerated() where runner.table(ofLayer: index) == table {
            guard model.decoder.cacheLayer(of: index) == index else { continue }
            let backend = block.backend
            if local[backend.device] == nil {
                let tensor = try backend.allocate(.int32, pairs.shape)
                try backend.copy(pairs, to: tensor)
                local[backend.device] = tensor
            }
            if let cache = runner.caches[index].keyValue, let pairs = local[backend.device] {
                try backend.copyBlocks(cache, pairs: pairs)
            }
        }
    }

    private func copyStates(_ copies: [BlockCopy]) throws {
        for (block, cache) in zip(model.decoder.blocks, runner.caches) {
            guard let state = cache.state else { continue }
            for tensor in [state.inputs, state.matrix].compactMap(\.self) {
                for copy in copies {
                    let (source, target) = (Int(copy.source), Int(copy.target))
                    try block.backend.copy(tensor.rows(source..<source + 1), to: tensor.rows(target..<target + 1))
                }
            }
        }
    }
}
