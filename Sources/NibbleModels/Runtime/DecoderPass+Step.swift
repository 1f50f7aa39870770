import NibbleCore

/// Decode steps of one token a row on a device with graphs.
///
/// While the host waits for a step's tokens, the device may already run the next one: each row goes on with the token that
/// is chosen for it, which never leaves the device. If the caller then asks for that step, its answers are there; otherwise
/// they are dropped. What such a step wrote lies behind every sequence's end.
extension DecoderPass {
    /// Runs a step and answers with a token for each row, or a negative number where none could be chosen.
    /// - Parameters:
    ///   - mayGoAhead: whether the caller is likely to continue every row with the token chosen.
    ///   - beforeChoosing: called when the blocks are enqueued.
    func step(
        _ image: CallImage, _ cross: CrossAttentionCache?, mayGoAhead: Bool = true, beforeChoosing: (() -> Void)? = nil
    ) throws -> [Int32] {
        let places = try takePlaces(image)
        var padded = padded(image)
        if places == nil {
            try launch(padded, cross, beforeChoosing)
            try reads[current].begin(sampled)
        } else {
            beforeChoosing?()
        }
        let rows = (0..<image.call.rows).map { padded.row($0) }
        let read = reads[current]
        let futile = ahead.enqueued.filter { entry in !rows.contains { $0.slot == entry.slot } }
        let hasGoneAhead = mayGoAhead && ahead.isTrusted && padded.goOn()
        let isEnqueued = try hasGoneAhead && enqueueAhead(padded, after: image, cross)
        let tokens = try read.wait().withMemoryRebound(to: Int32.self) { chosen in
            try uncount(futile, chosen)
            return (0..<image.call.rows).map { chosen[places?[$0] ?? $0] }
        }
        ahead.replace(
            rows.enumerated().map { index, row in
                (row.slot, index, .init(token: tokens[index], position: row.position + 1, counter: row.counter + 1))
            }, isEnqueued: isEnqueued)
        return tokens
    }

    /// The places of the rows' answers if the step runs already; else drops what was enqueued.
    private func takePlaces(_ image: CallImage) throws -> [Int]? {
        let rows = (0..<image.call.rows).map { image.row($0) }
        ahead.note(wasForeseen: rows.allSatisfy { ahead.foresees($0.foreseen, slot: $0.slot) })
        let places = rows.compactMap { ahead.place(of: $0.foreseen, slot: $0.slot) }
        guard places.count == rows.count else {
            try dropAhead()
            return nil
        }
        return places
    }

    /// Answers for rows that were enqueued early, by slot; they count as taken.
    func takeAhead(_ rows: [(slot: Int, row: StepAhead.Row?)]) throws -> [Int32] {
        let places = rows.compactMap { row in row.row.flatMap { ahead.place(of: $0, slot: row.slot) } }
        precondition(places.count == rows.count, "rows that were not enqueued")
        let tokens = try reads[current].wait().withMemoryRebound(to: Int32.self) { chosen in places.map { chosen[$0] } }
        for row in rows { ahead.forget(slot: row.slot) }
        return tokens
    }

    /// Whether a row's answer comes from a step that was enqueued early.
    func isAhead(_ row: StepAhead.Row?, slot: Int) -> Bool { row.map { ahead.place(of: $0, slot: slot) != nil } ?? false }

    /// Forgets what was enqueued early. Anything but the step that was foreseen needs this first.
    func dropAhead() throws {
        let futile = ahead.enqueued
        guard ahead.isEnqueued else { return }
        defer { ahead.removeAll(wasFutile: !futile.isEmpty) }
        try reads[current].wait().withMemoryRebound(to: Int32.self) { try uncount(futile, $0) }
    }

    /// Tokens that were chosen for nobody do not count.
    private func uncount(_ futile: [(slot: Int, place: Int)], _ chosen: UnsafeBufferPointer<Int32>) throws {
        for (slot, place) in futile where chosen[place] >= 0 && selection.isCounting(slot: slot) {
            try selection.uncount(chosen[place], slot: slot)
        }
    }

    /// Enqueues the step after `image`'s, which `next` describes, if a graph of the same launches can run it.
    private func enqueueAhead(_ next: CallImage, after image: CallImage, _ cross: CrossAttentionCache?) throws -> Bool {
        guard let graphs, next.call.maximumLength <= shape.context,
            graphs.launchLength(next.call.maximumLength, capacity: shape.context) == next.call.launchLength,
            model.positionLimit.map({ next.call.maximumLength <= $0 }) ?? true
        else { return false }
        let key = StepGraphs.Key(next.call, rotary: runner.rotaryVariants(next.call))
        guard graphs.isCaptured(key) else { return false }
        try launch(next, cross)
        current = 1 - current
        try reads[current].begin(sampled)
        return true
    }

    /// Runs a step as captured graphs, one for each device in turn, from the second time on.
    private func launch(_ image: CallImage, _ cross: CrossAttentionCache?, _ beforeChoosing: (() -> Void)? = nil) throws {
        guard let graphs else { preconditionFailure("launch lengths are for devices with graphs") }
        let output = try logits.device(rows: image.selected)
        try upload(image, cross)
        let variants = runner.rotaryVariants(image.call)
        let key = StepGraphs.Key(image.call, rotary: variants, isSplit: beforeChoosing != nil)
        try graphs.step(key, segments(image, cross, output, beforeChoosing)) {
            try [output] + self.runner.rotaryTensors(image.call) + self.model.adapters.tensors
        }
    }

    private func segments(
        _ image: CallImage, _ cross: CrossAttentionCache?, _ output: Tensor, _ beforeChoosing: (() -> Void)?
    ) -> [StepGraphs.Segment] {
        let call = image.call
        let context = crossContext(call, cross)
        var segments: [StepGraphs.Segment] = []
        var backend = model.decoder.embedding.backend
        var parts: [() throws -> Void] = [
            { [self, backend] in
                try backend.fillTokens(runner.indexBuffers(on: backend).tokens(call.tokens), latest: latest)
                try runner.embed(call)
            }
        ]
        func close() {
            let closed = parts
            segments.append(StepGraphs.Segment(on: backend) { for part in closed { try part() } })
            parts = []
        }
        for stage in runner.stages {
            if stage.backend !== backend {
                close()
                segments.append(StepGraphs.Segment(on: nil) { [runner] in try runner.enter(stage, call) })
                backend = stage.backend
            }
            parts.append { [runner] in try runner.run(stage, call, cross: context) }
        }
        if let beforeChoosing {
            close()
            segments.append(StepGraphs.Segment(on: nil, beforeChoosing))
        }
        let end: () throws -> Void = { [self] in
            try collect(image)
            try project(0..<image.selected, into: output)
            try select(image.selected, from: output, at: 0)
        }
        let isLocal = ([head] + model.decoder.endBackends).allSatisfy { $0 === backend }
        if isLocal { parts.append(end) }
        if !parts.isEmpty { close() }
        if !isLocal { segments.append(StepGraphs.Segment(on: nil, end)) }
        let embedding = model.decoder.embedding.backend
        guard head !== embedding else { return segments }
        segments.append(
            StepGraphs.Segment(on: nil) { [selection, latest] in try embedding.copy(selection.buffers.latest, to: latest) })
        return segments
    }

    /// Adds rows that nobody reads, so that few row counts need a graph. They write into a block of their own.
    private func padded(_ image: CallImage) -> CallImage {
        var image = image
        let rows = StepGraphs.paddedRows(image.call.rows, limit: shape.rows)
        for _ in image.call.rows..<rows {
            image.addPadding(blocks: shape.layout.blocks, stateTable: shape.layout.stateTable)
        }
        return image
    }
}
