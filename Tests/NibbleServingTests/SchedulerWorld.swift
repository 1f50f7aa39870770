import NibbleModels
import NibbleServing

/// A scheduler among random requests, cancellations and failures, with a fake clock and a ``ShadowExecutor``. It knows what must
/// come out and says what is wrong.
struct SchedulerWorld {
    private(set) var scheduler: Scheduler
    private var executor: ShadowExecutor
    private var random: SeededGenerator
    private var now: Duration = .zero
    private var plan = StepPlan()
    private var requests: [RequestID: ServingRequest] = [:]
    /// Answers that have not ended.
    private var open: Set<Answer> = []
    private var sequences: [Answer: ShadowSequence] = [:]
    private var slots: [Int: Answer] = [:]
    private(set) var fault: String?
    private(set) var counts = Counts()

    struct Answer: Hashable, Comparable {
        var id: RequestID
        var choice: Int

        static func < (a: Answer, b: Answer) -> Bool { (a.id.number, a.choice) < (b.id.number, b.choice) }
    }

    struct Counts {
        var submitted = 0
        var refused = 0
        var finished = 0
        var preempted = 0
        var cachedTokens = 0
        var forks = 0
        var steps = 0
    }

    init(seed: UInt64) {
        random = SeededGenerator(seed: seed)
        let slots = Int.random(in: 1...6, using: &random)
        let blockSize = [1, 2, 4].randomElement(using: &random) ?? 4
        let tables = Self.tables(blockSize: blockSize, &random)
        var limits = SchedulerLimits(slots: slots, context: Int.random(in: 12...64, using: &random), chunkTokens: 24)
        limits.queuedRequests = 12
        limits.queuedTokens = 200
        limits.overtakings = 3
        limits.targetStep = .milliseconds(30)
        // Sometimes few bits of hashes, so that they collide.
        let hashMask: UInt64 = [7, 63, .max].randomElement(using: &random) ?? 7
        let pool = BlockPool(tables: tables, blockSize: blockSize, hashMask: hashMask)
        scheduler = Scheduler(limits: limits, pool: pool, secondsPerToken: 0.001)
        executor = ShadowExecutor(tables: tables, blockSize: blockSize)
    }

    private static func tables(blockSize: Int, _ random: inout SeededGenerator) -> [CacheTable] {
        var tables: [CacheTable] = []
        for kind in kinds(&random) {
            let blocks = kind == .state ? 2...12 : 16 / blockSize...96 / blockSize
            tables.append(CacheTable(kind, blockCount: Int.random(in: blocks, using: &random)))
        }
        return tables
    }

    /// What the tables of a cache hold: every second cache is that of a plain model.
    private static func kinds(_ random: inout SeededGenerator) -> [CacheKind] {
        let window = CacheKind.window(Int.random(in: 1...12, using: &random))
        let wide = CacheKind.window(Int.random(in: 13...30, using: &random))
        let choices: [[CacheKind]] = [
            [.full, window], [window], [wide], [.full, wide, window], [.state], [.full, .state], [window, .state],
        ]
        return Bool.random(using: &random) ? [.full] : choices.randomElement(using: &random) ?? [.full]
    }

    // MARK: Events

    /// One random event.
    mutating func advance() {
        switch Int.random(in: 0..<1000, using: &random) {
        case 0..<220: submit()
        case 220..<240: if let answer = open.min(by: { mixed($0.id.number) < mixed($1.id.number) }) { cancel(answer.id) }
        case 240..<255: finishByString()
        case 255: take(scheduler.failAll("the device is gone"))
        default: runStep()
        }
    }

    /// Runs until nothing is left; then nothing may be held.
    mutating func finishAll() {
        var steps = 0
        while fault == nil, !scheduler.isIdle {
            runStep()
            steps += 1
            if steps > 20_000 { fault = "the requests never end" }
        }
        guard fault == nil else { return }
        if scheduler.pool.usedCount != 0 { fault = "\(scheduler.pool.usedCount) blocks are held by nobody" }
        if let lost = open.first { fault = "request \(lost.id.number), choice \(lost.choice) was lost" }
        if !slots.isEmpty { fault = "slots are held by nobody" }
        checkIndex()
    }

    /// Whoever gets all blocks leaves nothing that is known.
    private mutating func checkIndex() {
        var pool = scheduler.pool
        guard pool.tables.count == 1, pool.tables[0].kind == .full else { return }
        var all = pool.emptySequence(root: .plain)
        _ = pool.append(pool.blockCount * pool.blockSize, to: &all)
        if pool.availableCount != 0 || pool.knownCount != 0 { fault = "the index knows \(pool.knownCount) texts without blocks" }
    }

    private mutating func submit() {
        var prompt: [Int32] = []
        // A few beginnings that many share, then a tail of its own.
        var beginning = SeededGenerator(seed: UInt64.random(in: 0..<4, using: &random))
        for _ in 0..<Int.random(in: 0...20, using: &random) { prompt.append(Int32.random(in: 0..<5, using: &beginning)) }
        for _ in 0..<Int.random(in: 0...6, using: &random) { prompt.append(Int32.random(in: 0..<5, using: &random)) }
        var request = ServingRequest(prompt: prompt, maxNewTokens: Int.random(in: 0...20, using: &random))
        request.choices = Int.random(in: 0..<8, using: &random) == 0 ? Int.random(in: 0...4, using: &random) : 1
        request.stopTokens = Bool.random(using: &random) ? [] : [Int32.random(in: 0..<5, using: &random)]
        request.root = PrefixRoot(number: UInt32.random(in: 0..<2, using: &random))
        request.client = ["a", "b", "c"].randomElement(using: &random) ?? "a"
        if Int.random(in: 0..<20, using: &random) == 0 {
            request.deadline = now + .milliseconds(Int.random(in: 0...400, using: &random))
        }
        do {
            let id = try scheduler.submit(request)
            requests[id] = request
            for choice in 0..<request.choices { open.insert(Answer(id: id, choice: choice)) }
            counts.submitted += 1
        } catch {
            counts.refused += 1
            if !isRight(error, request) { fault = "refused \(request): \(error)" }
        }
    }

    private func isRight(_ error: any Error, _ request: ServingRequest) -> Bool {
        switch error as? EngineError {
        case .emptyPrompt: request.prompt.isEmpty
        case .invalidCount(_, let found): found < 1 && (found == request.maxNewTokens || found == request.choices)
        case .promptTooLong(let tokens, let context): tokens == request.prompt.count && tokens >= context
        case .tooManyChoices(let asked, let slots): asked == request.choices && asked > slots
        case .queueIsFull(let requests): requests >= 12 && scheduler.waitingCount >= 12
        case .queueHoldsTooManyTokens(let tokens, _): tokens == scheduler.waitingTokens + request.prompt.count && tokens > 200
        default: false
        }
    }

    private mutating func cancel(_ id: RequestID) {
        take(scheduler.cancel(id))
        if open.contains(where: { $0.id == id }) { fault = "request \(id.number) outlives its cancellation" }
    }

    private mutating func finishByString() {
        guard let answer = slots.values.min() else { return }
        take(scheduler.finish(answer.id, choice: answer.choice, reason: .stopString))
        if open.contains(answer) { fault = "an answer outlives its end" }
    }

    // MARK: Steps

    private mutating func runStep() {
        now += .milliseconds(10)
        let events = scheduler.plan(now: now, into: &plan)
        let running = slots
        take(events)
        checkPlan(running)
        guard fault == nil, !plan.rows.isEmpty else {
            if fault == nil, plan.rows.isEmpty, !scheduler.isIdle { fault = "requests wait and nothing runs" }
            return
        }
        let held = slots.compactMapValues { sequences[$0] }
        if let fault = executor.run(plan, held) {
            self.fault = fault
            return
        }
        let chosen = plan.rows.filter(\.wantsToken).map { row -> ChosenToken in
            Int.random(in: 0..<400, using: &random) == 0
                ? .failed("no token is allowed") : .token(held[row.slot]?.nextToken ?? -1)
        }
        counts.steps += 1
        // Requests may end while their step runs.
        if Int.random(in: 0..<50, using: &random) == 0, let answer = slots.values.max() { cancel(answer.id) }
        take(scheduler.complete(chosen, seconds: 0.002 + 0.001 * Double(plan.tokens.count)))
    }

    private mutating func checkPlan(_ before: [Int: Answer]) {
        let slots = plan.rows.map(\.slot)
        if Set(slots).count != slots.count { fault = "a slot is in the step twice" }
        if plan.tokens.count > max(scheduler.limits.chunkTokens, scheduler.limits.slots) {
            fault = "the step has \(plan.tokens.count) tokens"
        }
        if plan.rows.contains(where: { $0.tokens.isEmpty }) { fault = "a row without tokens" }
        let isPrompt = plan.rows.map { $0.tokens.count > 1 || !$0.wantsToken }
        if let first = isPrompt.firstIndex(of: true), isPrompt[first...].contains(false) {
            // A prompt's last token may come alone behind longer prompts; a row that has chosen tokens may not.
            if Array(zip(plan.rows, isPrompt))[first...].contains(where: {
                !$1 && $0.counter > 0 && $0.start > 0 && wasDecoding($0)
            }) {
                fault = "a decoding row stands behind a prompt"
            }
        }
        for (slot, answer) in before where self.slots[slot] == answer && decodesNext.contains(answer) {
            if !slots.contains(slot), answer != self.slots.values.min() { fault = "a decoding row is not in the step" }
        }
        decodesNext = []
    }

    /// Answers whose last step gave a token: they want the next one in the next step.
    private var decodesNext: Set<Answer> = []

    private func wasDecoding(_ row: StepPlan.Row) -> Bool { slots[row.slot].map(decodesNext.contains) ?? false }

    // MARK: What happened

    private mutating func take(_ events: [SchedulerEvent]) {
        for event in events where fault == nil { take(event) }
    }

    private mutating func take(_ event: SchedulerEvent) {
        switch event {
        case .started(let id, let choice, let slot, let cached): start(Answer(id: id, choice: choice), slot, cached)
        case .token(let id, let choice, let token): receive(Answer(id: id, choice: choice), token)
        case .preempted(let id, let choice):
            let answer = Answer(id: id, choice: choice)
            if answer == slots.values.min() { fault = "the oldest sequence was preempted" }
            leave(answer)
            counts.preempted += 1
        case .finished(let id, let choice, let reason): finish(Answer(id: id, choice: choice), reason)
        }
    }

    private mutating func start(_ answer: Answer, _ slot: Int, _ cached: Int) {
        guard let request = requests[answer.id], open.contains(answer) else {
            fault = "an unknown answer starts"
            return
        }
        if slots[slot] != nil { fault = "slot \(slot) is given twice" }
        slots[slot] = answer
        if sequences[answer] == nil { sequences[answer] = ShadowSequence(request, id: answer.id, choice: answer.choice) }
        if answer.choice > 0 {
            sequences[Answer(id: answer.id, choice: 0)]?.waitsForForks = false
            counts.forks += 1
        }
        counts.cachedTokens += cached
    }

    private mutating func receive(_ answer: Answer, _ token: Int32) {
        guard slots.values.contains(answer), let sequence = sequences[answer] else {
            fault = "a token for nobody"
            return
        }
        if token != sequence.nextToken { fault = "\(sequence.name) got the token of another row" }
        sequences[answer]?.append(token)
        decodesNext.insert(answer)
    }

    private mutating func leave(_ answer: Answer) {
        slots = slots.filter { $0.value != answer }
        decodesNext.remove(answer)
    }

    private mutating func finish(_ answer: Answer, _ reason: ServingFinish) {
        guard open.remove(answer) != nil, let request = requests[answer.id] else {
            fault = "an answer ends twice"
            return
        }
        let tokens = sequences[answer]?.tokens ?? request.prompt
        let chosen = tokens.count - request.prompt.count
        let isStopped = tokens.suffix(chosen).last.map(request.stopTokens.contains) ?? false
        let isFull = chosen == request.maxNewTokens || tokens.count == scheduler.capacity
        let isRight =
            switch reason {
            case .stopToken: isStopped
            case .length: isFull && !isStopped
            case .deadline: request.deadline.map { $0 <= now } ?? false
            case .stopString, .complete, .cancelled, .failed: !isStopped && !isFull
            }
        if !isRight { fault = "request \(answer.id.number) ended with \(reason) after \(chosen) tokens" }
        leave(answer)
        sequences[answer] = nil
        counts.finished += 1
        if !open.contains(where: { $0.id == answer.id }) { requests[answer.id] = nil }
    }
}
