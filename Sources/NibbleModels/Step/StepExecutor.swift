import NibbleCore

/// How large an executor is.
package struct ExecutorSize: Sendable, Equatable {
    /// Sequences side by side.
    package var slots: Int
    /// Positions that a sequence may have; `nil`: as many as the model was made for. Never more than the cache holds and the
    /// model has embeddings for.
    package var context: Int?
    /// Bytes for keys and values on each device; `nil`: three quarters of what is free there.
    package var cacheBytes: Int?
    /// Tokens of a step; `nil`: as the model was loaded.
    package var chunkTokens: Int?
    /// Physical cache blocks of each table; `nil`: as many as ``cacheBytes`` allows. Never more than all slots can fill.
    package var blocks: Int?

    package init(
        slots: Int, context: Int? = nil, cacheBytes: Int? = nil, chunkTokens: Int? = nil, blocks: Int? = nil
    ) {
        self.slots = slots
        self.context = context
        self.cacheBytes = cacheBytes
        self.chunkTokens = chunkTokens
        self.blocks = blocks
    }
}

/// Runs plans over a decoder. Layers with the same attention window share a block table, and so do recurrent ones.
package final class StepExecutor: StepRunning {
    package let slots: Int
    package let chunkTokens: Int
    package let tables: [CacheTable]
    package let context: Int
    package let encoderContext: Int?
    package let sharesPrefixes: Bool
    /// Whether rotary tables follow the length of the whole sequence.
    private let isLengthDependent: Bool
    private let model: LanguageModel
    private let pass: DecoderPass
    /// Encoder-decoders only.
    private let encoders: EncoderPool?
    private var records: [SlotRecord]
    /// The rows of a step that run together.
    private var group: [Int] = []
    /// Of the step that runs; called by the first of its groups.
    private var beforeChoosing: (() -> Void)?

    /// What the host keeps of a slot.
    private struct SlotRecord {
        /// The length by which rotary tables are chosen, until the sequence outgrows it.
        var promptLength = 0
        var logProbabilities: Int?
        var usesMask = false
    }

    /// - Throws: ``ModelError`` where the size is impossible; `BackendError` where memory runs out.
    init(_ model: LanguageModel, _ size: ExecutorSize) throws {
        let planning = try ExecutorPlanning(model, size)
        let shape = try planning.shape()
        self.model = model
        slots = shape.rows
        chunkTokens = shape.chunkTokens
        context = shape.context
        tables = shape.layout.tables
        isLengthDependent = model.decoder.description.rotary.contains(where: \.dependsOnLength)
        encoderContext = model.encoder == nil ? nil : planning.encoderContext
        sharesPrefixes = !isLengthDependent && model.encoder == nil
        pass = try model.takePass(shape)
        encoders = try model.encoder.map {
            try EncoderPool(model, $0, shape, maximumLength: planning.encoderContext)
        }
        records = Array(repeating: SlotRecord(), count: slots)
    }

    deinit {
        try? pass.dropAhead()
        model.giveBack(pass)
    }

    package var vocabularySize: Int { model.vocabularySize }
    package var cacheByteCount: Int { pass.cacheByteCount }

    // MARK: Slots

    package func begin(slot: Int, _ settings: SlotSettings) throws {
        pass.ahead.forget(slot: slot)
        let adapters = settings.adapters ?? model.adapters.active
        try pass.runner.adapters.set(adapters, slot: slot)
        try encoders?.attach(slot: slot, to: .init(tokens: settings.encoderInput, adapters: adapters))
        try pass.selection.write(
            settings.selection, slot: slot, prompt: settings.selection.hasPenalties ? settings.prompt : [],
            generated: settings.selection.hasPenalties ? settings.generated : [])
        records[slot] = SlotRecord(
            promptLength: settings.prompt.count + settings.generated.count, logProbabilities: settings.logProbabilities,
            usesMask: settings.selection.usesMask)
    }

    package func setMask(_ words: UnsafeBufferPointer<Int32>, slot: Int) throws {
        try pass.selection.writeMask(words, slot: slot)
    }

    // MARK: Steps

    package func step(_ plan: StepPlan, beforeChoosing: (() -> Void)?) throws -> [StepAnswer] {
        self.beforeChoosing = beforeChoosing
        defer { self.beforeChoosing = nil }
        for table in tables.indices { try pass.copyBlocks(plan.copies.filter { $0.table == table }, table: table) }
        guard !isLengthDependent else { return try stepByVariant(plan) }
        let early = plan.rows.indices.filter { pass.isAhead(foreseen(plan, $0), slot: plan.rows[$0].slot) }
        group.removeAll(keepingCapacity: true)
        guard !early.isEmpty, early.count < plan.rows.count else {
            if early.isEmpty { try pass.dropAhead() }
            group += plan.rows.indices
            return try runGroup(plan)
        }
        let answers = try pass.takeAhead(early.map { (plan.rows[$0].slot, foreseen(plan, $0)) })
        try pass.dropAhead()
        return try run(plan, besides: early, answers)
    }

    /// What a row asks for, if it goes on by one token.
    private func foreseen(_ plan: StepPlan, _ index: Int) -> StepAhead.Row? {
        let row = plan.rows[index]
        guard row.tokens.count == 1, row.wantsToken else { return nil }
        return StepAhead.Row(token: plan.tokens[row.tokens.lowerBound], position: row.start, counter: row.counter)
    }

    /// Runs the rows that have no answer yet.
    private func run(_ plan: StepPlan, besides early: [Int], _ tokens: [Int32]) throws -> [StepAnswer] {
        var answers = [StepAnswer?](repeating: nil, count: plan.rows.count)
        for (index, token) in zip(early, tokens) { answers[index] = StepAnswer(token: token) }
        group += plan.rows.indices.filter { answers[$0] == nil }
        let wanting = group.filter { plan.rows[$0].wantsToken }
        for (index, answer) in zip(wanting, try runGroup(plan)) { answers[index] = answer }
        return answers.compactMap(\.self)
    }

    /// Rows run together only with rows of the same rotary tables: a row must not depend on how long its neighbours are.
    private func stepByVariant(_ plan: StepPlan) throws -> [StepAnswer] {
        let variants = plan.rows.map { row in
            model.decoder.description.rotary.map { $0.variant(length: rotaryLength(row)) }
        }
        var answers = [StepAnswer?](repeating: nil, count: plan.rows.count)
        for variant in Set(variants) {
            group = plan.rows.indices.filter { variants[$0] == variant }
            let wanting = group.filter { plan.rows[$0].wantsToken }
            for (row, answer) in zip(wanting, try runGroup(plan)) { answers[row] = answer }
        }
        return answers.compactMap(\.self)
    }

    private func rotaryLength(_ row: StepPlan.Row) -> Int {
        max(records[row.slot].promptLength, row.start + row.tokens.count)
    }

    /// Runs the rows of ``group`` and answers for those that want a token.
    private func runGroup(_ plan: StepPlan) throws -> [StepAnswer] {
        var maximumLength = 0
        var rotaryLength = 0
        var isStep = true
        for index in group {
            let row = plan.rows[index]
            maximumLength = max(maximumLength, row.start + row.tokens.count)
            rotaryLength = max(rotaryLength, self.rotaryLength(row))
            isStep = isStep && row.tokens.count == 1 && row.wantsToken
        }
        var image = try pass.begin(maximumLength: maximumLength, rotaryLength: rotaryLength, isStep: isStep)
        for index in group {
            let row = plan.rows[index]
            image.addRow(
                plan.tokens[row.tokens], start: row.start, wanted: row.wantsToken ? .last : .none, slot: row.slot,
                counter: row.counter)
            for table in tables.indices {
                let blocks = plan.blocks(of: row, table: table)
                if tables[table].kind == .state {
                    setState(row, blocks, in: &image)
                } else {
                    image.setBlocks(blocks, table: table)
                }
            }
        }
        encoders?.cross.setRows(group.lazy.map { plan.rows[$0].slot })
        let wanting = group.filter { plan.rows[$0].wantsToken }
        let scored = wanting.map { records[plan.rows[$0].slot].logProbabilities }
        let prepare = beforeChoosing
        beforeChoosing = nil
        guard scored.contains(where: { $0 != nil }) else {
            if image.call.launchLength != nil {
                let mayGoAhead = plan.isSteady && !isLengthDependent && !group.contains { records[plan.rows[$0].slot].usesMask }
                return try pass.step(image, encoders?.cross, mayGoAhead: mayGoAhead, beforeChoosing: prepare)
                    .map { StepAnswer(token: $0) }
            }
            try pass.choose(image, encoders?.cross, beforeChoosing: prepare)
            return try pass.readChosen(image.selected).map { StepAnswer(token: $0) }
        }
        return try pass.chooseWithScores(image, scored, encoders?.cross, beforeChoosing: prepare)
    }

    /// A row begins from the state in the block of its last position and leaves its own in the block of its new last one.
    private func setState(_ row: StepPlan.Row, _ blocks: ArraySlice<Int32>, in image: inout CallImage) {
        let end = row.start + row.tokens.count
        func block(_ position: Int) -> Int32 { blocks[blocks.startIndex + position / KeyValueGeometry.blockSize] }
        // A step that is enqueued early may write there: if nobody asks for it, its sequence has ended or begins anew.
        let next = end % KeyValueGeometry.blockSize == 0 ? nil : block(end)
        image.setState(.init(source: row.start == 0 ? nil : block(row.start - 1), target: block(end - 1)), next: next)
    }
}

extension LanguageModel {
    /// Makes an executor. It holds its memory for as long as it lives.
    package func makeExecutor(_ size: ExecutorSize) throws -> any StepRunning { try StepExecutor(self, size) }
}
