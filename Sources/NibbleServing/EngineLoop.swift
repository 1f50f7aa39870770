import NibbleCore
import NibbleModels

/// What the engine's thread does: reads its messages, plans a step, runs it, delivers what it chose.
final class EngineLoop {
    let limits: SchedulerLimits
    let capacity: Int
    let vocabularySize: Int
    let encoderContext: Int?
    private let executor: any StepRunning
    private let inbox: EngineInbox
    private let start = ContinuousClock.now
    private var scheduler: Scheduler
    private var plan = StepPlan()
    private var messages: [EngineInbox.Message] = []
    private var open: [RequestID: OpenRequest] = [:]
    /// Requests whose mailboxes have news.
    private var touched: [OpenRequest] = []
    private var chosen: [ChosenToken] = []
    /// Each gets a piece in turn.
    private var works: [EngineWork] = []
    /// By slot, of the step that has just run.
    private var scores: [TokenScores?]
    /// Answers whose next token needs a new mask.
    private var masked: [(request: OpenRequest, choice: Int)] = []
    private var maskWords: [Int32]
    private var promptTokens = 0
    private var cachedTokens = 0
    private var chosenTokens = 0
    private var preemptions = 0
    private var steps = 0
    /// Roots that are given by number: where prefixes cannot be shared, each request has its own.
    private var nextRoot: UInt32 = 1
    /// Those of requests with adapters.
    private var adapterRoots: [AdapterRoot: PrefixRoot] = [:]

    private struct AdapterRoot: Hashable {
        let root: PrefixRoot
        let adapters: AdapterWeights
    }

    init(_ executor: any StepRunning, _ options: EngineOptions, _ inbox: EngineInbox) {
        self.executor = executor
        self.inbox = inbox
        var limits = SchedulerLimits(slots: executor.slots, context: executor.context, chunkTokens: executor.chunkTokens)
        limits.mixedChunkTokens = min(executor.chunkTokens, SessionOptions.defaultChunkTokens)
        limits.queuedRequests = options.queuedRequests
        limits.queuedTokens = options.queuedTokens
        limits.targetStep = options.targetStep
        self.limits = limits
        let pool = BlockPool(tables: executor.tables, blockSize: KeyValueGeometry.blockSize)
        scheduler = Scheduler(limits: limits, pool: pool, secondsPerToken: options.secondsPerToken)
        capacity = scheduler.capacity
        vocabularySize = executor.vocabularySize
        encoderContext = executor.encoderContext
        scores = Array(repeating: nil, count: executor.slots)
        maskWords = Array(repeating: 0, count: (executor.vocabularySize + 31) / 32)
        inbox.update { $0.blocks = pool.blockCount }
    }

    /// Returns when the engine has ended.
    func run() {
        while true {
            let order = inbox.take(&messages, isIdle: scheduler.isIdle && works.isEmpty)
            switch order {
            case .work: break
            case .leave: return end(.stopped, .stopped)
            case .stop: return end(.stopped, .stopped)
            }
            for message in messages { receive(message) }
            messages.removeAll(keepingCapacity: true)
            runWork()
            do {
                try step()
            } catch {
                let failure = error as? EngineError ?? .engineFailed("\(error)")
                return end(.failed(failure), failure)
            }
        }
    }

    /// Everybody who waits learns of the end.
    private func end(_ life: EngineStatus.Life, _ error: EngineError) {
        messages += inbox.close(life)
        for message in messages {
            switch message {
            case .submit(let request): request.mailbox.fail(error)
            case .work(let work): work.end(.failure(error))
            case .cancel, .finish: break
            }
        }
        for work in works { work.end(.failure(error)) }
        works = []
        for request in open.values { request.mailbox.fail(error) }
        open = [:]
    }

    private func receive(_ message: EngineInbox.Message) {
        switch message {
        case .submit(let request): submit(request)
        case .cancel(let request): if let id = request.id { take(scheduler.cancel(id)) }
        case .finish(let request, let choice, let reason):
            if let id = request.id { take(scheduler.finish(id, choice: choice, reason: reason)) }
        case .work(let work): works.append(work)
        }
    }

    private func runWork() {
        guard !works.isEmpty else { return }
        let work = works.removeFirst()
        if work.runPiece() { inbox.workHasEnded() } else { works.append(work) }
    }

    private func submit(_ request: OpenRequest) {
        var wanted = request.submission.request
        if let limit = request.submission.timeLimit { wanted.deadline = start.duration(to: .now) + limit }
        if !executor.sharesPrefixes {
            wanted.root = newRoot()
        } else if let adapters = request.submission.adapters, !adapters.isEmpty {
            wanted.root = root(AdapterRoot(root: wanted.root, adapters: adapters))
        }
        do {
            let id = try scheduler.submit(wanted)
            request.id = id
            open[id] = request
        } catch {
            inbox.hasEnded(request.submission.request)
            request.mailbox.fail(error)
        }
    }

    private func newRoot() -> PrefixRoot {
        defer { nextRoot &+= 1 }
        return PrefixRoot(number: nextRoot & ~(1 << 31))
    }

    /// Keys and values depend on the adapters. Numbers are not used again, so forgetting them only loses what was shared.
    private func root(_ key: AdapterRoot) -> PrefixRoot {
        if let known = adapterRoots[key] { return known }
        if adapterRoots.count >= 1024 { adapterRoots.removeAll() }
        let root = newRoot()
        adapterRoots[key] = root
        return root
    }

    // MARK: Steps

    /// - Throws: what the executor throws: nothing can be rescued then.
    private func step() throws {
        let events = scheduler.plan(now: start.duration(to: .now), into: &plan)
        take(events)
        guard !plan.rows.isEmpty else {
            if events.isEmpty, !scheduler.isIdle { throw EngineError.engineFailed("requests wait and nothing can run") }
            return publish()
        }
        // What has begun or ended since the last step is known before the next one ends.
        if !touched.isEmpty { publish() }
        let lengths = plan.rows.reduce(0) { $0 + $1.start + $1.tokens.count }
        let predicted = scheduler.time.seconds(tokens: plan.tokens.count, lengths: lengths)
        let began = ContinuousClock.now
        inbox.update { status in
            status.heartbeat.lastStepBegan = began
            status.heartbeat.last = began
            status.heartbeat.predicted = .seconds(min(predicted, 1e6))
        }
        let answers = try executor.step(plan, beforeChoosing: masked.isEmpty ? nil : { [self] in writeMasks() })
        steps += 1
        inbox.update { $0.stepTokens.add(plan.tokens.count) }
        try read(answers)
        take(scheduler.complete(chosen, seconds: began.duration(to: .now) / .seconds(1)))
        publish()
    }

    private func read(_ answers: [StepAnswer]) throws {
        chosen.removeAll(keepingCapacity: true)
        for row in plan.rows where row.wantsToken {
            guard chosen.count < answers.count else { break }
            let answer = answers[chosen.count]
            scores[row.slot] = answer.scores
            chosen.append(answer.token >= 0 ? .token(answer.token) : .failed(Self.noToken))
        }
        let wanted = plan.rows.count(where: \.wantsToken)
        guard chosen.count == wanted, answers.count == wanted else {
            throw EngineError.engineFailed("a step gave \(answers.count) tokens for \(wanted) rows")
        }
    }

    private static let noToken = "no token can be chosen: every token is forbidden, or the model's scores are not numbers (NaN)"

    /// Tells readers and everybody else what has changed.
    private func publish() {
        for request in touched {
            request.isTouched = false
            request.mailbox.wakeReader()
        }
        touched.removeAll(keepingCapacity: true)
        let ended = ContinuousClock.now
        inbox.update { status in
            status.running = scheduler.runningCount
            status.waitingRequests = scheduler.waitingCount
            status.waitingTokens = scheduler.waitingTokens
            status.usedBlocks = scheduler.pool.usedCount
            status.cachedBlocks = scheduler.pool.cachedCount
            status.promptTokens = promptTokens
            status.cachedTokens = cachedTokens
            status.chosenTokens = chosenTokens
            status.preemptions = preemptions
            if status.steps != steps { status.heartbeat.lastStepEnded = ended }
            status.steps = steps
            status.heartbeat.last = ended
        }
    }
}

// MARK: Events

extension EngineLoop {
    private func take(_ events: [SchedulerEvent]) {
        for event in events {
            switch event {
            case .started(let id, let choice, let slot, let cached):
                if let request = open[id] { begin(request, choice, slot: slot, cachedTokens: cached) }
            case .token(let id, let choice, let token):
                if let request = open[id] { deliver(token, request, choice) }
            case .preempted(let id, let choice):
                open[id]?.answers[choice].slot = nil
                preemptions += 1
            case .finished(let id, let choice, let reason):
                if let request = open[id] { finish(request, id, choice, reason) }
            }
        }
    }

    private func begin(_ request: OpenRequest, _ choice: Int, slot: Int, cachedTokens cached: Int) {
        let submission = request.submission
        request.answers[choice].slot = slot
        if !request.answers[choice].hasBegun {
            request.answers[choice].hasBegun = true
            request.mailbox.begin(choice, cachedTokens: cached)
            touch(request)
            if choice == 0 {
                promptTokens += submission.request.prompt.count
                cachedTokens += cached
            }
        }
        var selection = submission.selection
        selection.stream &+= UInt64(choice)
        selection.usesMask = submission.masks != nil
        var settings = SlotSettings(
            selection: selection, prompt: submission.request.prompt, generated: Array(scheduler.chosenTokens(slot: slot)),
            logProbabilities: submission.logProbabilities)
        settings.encoderInput = submission.encoderInput
        settings.adapters = submission.adapters
        do {
            try executor.begin(slot: slot, settings)
            guard let masks = submission.masks else { return }
            if request.answers[choice].masks == nil { request.answers[choice].masks = try masks(choice) }
            try writeMask(request, choice)
        } catch {
            fail(request, choice, error)
        }
    }

    private func deliver(_ token: Int32, _ request: OpenRequest, _ choice: Int) {
        let slot = request.answers[choice].slot
        request.mailbox.add(choice, token, slot.flatMap { scores[$0] })
        chosenTokens += 1
        touch(request)
        guard let masks = request.answers[choice].masks else { return }
        do {
            try masks.accept(token)
            if try masks.isExhausted, let id = request.id {
                take(scheduler.finish(id, choice: choice, reason: .complete))
            } else {
                masked.append((request, choice))
            }
        } catch {
            fail(request, choice, error)
        }
    }

    private func finish(_ request: OpenRequest, _ id: RequestID, _ choice: Int, _ reason: ServingFinish) {
        request.answers[choice] = OpenRequest.Answer(hasBegun: true)
        request.mailbox.end(choice, reason)
        touch(request)
        request.openAnswers -= 1
        guard request.openAnswers == 0 else { return }
        open[id] = nil
        inbox.hasEnded(request.submission.request)
    }

    /// Ends one answer. Its neighbours go on.
    private func fail(_ request: OpenRequest, _ choice: Int, _ error: any Error) {
        if let id = request.id { take(scheduler.finish(id, choice: choice, reason: .failed("\(error)"))) }
    }

    private func touch(_ request: OpenRequest) {
        guard !request.isTouched else { return }
        request.isTouched = true
        touched.append(request)
    }

    // MARK: Masks

    private func writeMasks() {
        for (request, choice) in masked {
            do { try writeMask(request, choice) } catch { fail(request, choice, error) }
        }
        masked.removeAll(keepingCapacity: true)
    }

    /// Nothing for an answer that has ended, or waits: then its mask is written when it begins again.
    private func writeMask(_ request: OpenRequest, _ choice: Int) throws {
        guard let slot = request.answers[choice].slot, let masks = request.answers[choice].masks else { return }
        try maskWords.withUnsafeMutableBufferPointer { try masks.mask(into: $0) }
        try maskWords.withUnsafeBufferPointer { try executor.setMask($0, slot: slot) }
    }
}
