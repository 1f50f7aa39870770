import NibbleModels
import NibbleServing
import Testing

/// Each rule by itself, on a scheduler whose sizes make it visible.
@Suite struct SchedulerRuleTests {
    var plan = StepPlan()

    static func scheduler(
        slots: Int = 4, context: Int = 1000, chunk: Int = 128, blocks: Int = 1000, blockSize: Int = 4,
        secondsPerToken: Double = 0.001, _ change: (inout SchedulerLimits) -> Void = { _ in }
    ) -> Scheduler {
        var limits = SchedulerLimits(slots: slots, context: context, chunkTokens: chunk)
        change(&limits)
        return Scheduler(
            limits: limits, pool: BlockPool(blockCount: blocks, blockSize: blockSize), secondsPerToken: secondsPerToken)
    }

    static func request(_ prompt: Range<Int32>, new: Int = 4, _ change: (inout ServingRequest) -> Void = { _ in })
        -> ServingRequest
    {
        var request = ServingRequest(prompt: Array(prompt), maxNewTokens: new)
        change(&request)
        return request
    }

    /// Runs a step in which every row that wants one gets `token`. Answers the tokens each slot was fed, and the events.
    @discardableResult
    mutating func step(
        _ scheduler: inout Scheduler, token: Int32 = 9, at now: Duration = .zero, seconds: Double = 0
    ) -> (fed: [Int: Int], events: [SchedulerEvent]) {
        var events = scheduler.plan(now: now, into: &plan)
        let fed = Dictionary(uniqueKeysWithValues: plan.rows.map { ($0.slot, $0.tokens.count) })
        let chosen = plan.rows.filter(\.wantsToken).map { _ in ChosenToken.token(token) }
        events += scheduler.complete(chosen, seconds: seconds)
        return (fed, events)
    }

    @Test("a prompt runs in chunks, then a token a step, until its length is reached")
    mutating func oneRequest() throws {
        var scheduler = Self.scheduler(chunk: 8)
        let id = try scheduler.submit(Self.request(0..<20, new: 2))
        #expect(step(&scheduler) == ([0: 8], [.started(id, choice: 0, slot: 0, cachedTokens: 0)]))
        #expect(step(&scheduler) == ([0: 8], []))
        #expect(step(&scheduler) == ([0: 4], [.token(id, choice: 0, 9)]))
        #expect(step(&scheduler) == ([0: 1], [.token(id, choice: 0, 9), .finished(id, choice: 0, .length)]))
        #expect(scheduler.isIdle && scheduler.pool.usedCount == 0)
    }

    @Test("an equal beginning is computed once, to the token")
    mutating func prefix() throws {
        var scheduler = Self.scheduler()
        _ = try scheduler.submit(Self.request(0..<21, new: 1))
        step(&scheduler)
        // 20 tokens are known as full blocks; of 19 equal ones, 4 blocks and 3 tokens of the next.
        let same = try scheduler.submit(Self.request(0..<21, new: 1))
        #expect(step(&scheduler).events.first == .started(same, choice: 0, slot: 0, cachedTokens: 20))
        let shorter = try scheduler.submit(
            Self.request(0..<19, new: 1) { $0.prompt += [100, 101] })
        #expect(step(&scheduler).events.first == .started(shorter, choice: 0, slot: 0, cachedTokens: 19))
        #expect(plan.copies.count == 1)
        let other = try scheduler.submit(Self.request(0..<21, new: 1) { $0.root = PrefixRoot(number: 1) })
        #expect(step(&scheduler).events.first == .started(other, choice: 0, slot: 0, cachedTokens: 0))
    }

    @Test(
        "with states, steps of prompts end where blocks do, and once more before the last tokens",
        arguments: [
            (22, 128, [20, 2], 20), (9, 128, [8, 1], 8), (7, 128, [7], 0), (8, 128, [8], 0), (40, 10, [8, 8, 8, 8, 4, 4], 36),
            (14, 3, [3, 1, 3, 1, 3, 1, 2], 12),
        ])
    mutating func states(count: Int32, chunk: Int, wanted: [Int], cached: Int) throws {
        let pool = BlockPool(tables: [CacheTable(blockCount: 100), CacheTable(.state, blockCount: 12)], blockSize: 4)
        var scheduler = Scheduler(
            limits: SchedulerLimits(slots: 4, context: 1000, chunkTokens: chunk), pool: pool, secondsPerToken: 0.001)
        _ = try scheduler.submit(Self.request(0..<count, new: 1))
        var fed: [Int] = []
        while !scheduler.isIdle { fed += step(&scheduler).fed.values }
        #expect(fed == wanted)
        // Whoever comes with the same beginning starts from the last state at the end of a block.
        let again = try scheduler.submit(Self.request(0..<count, new: 1))
        #expect(step(&scheduler).events.first == .started(again, choice: 0, slot: 0, cachedTokens: cached))
    }

    @Test("of prompts that come together, a common beginning is computed once")
    mutating func simultaneousPrefix() throws {
        var scheduler = Self.scheduler(chunk: 16)
        for tail: Int32 in [100, 200, 300] { _ = try scheduler.submit(Self.request(0..<40, new: 1) { $0.prompt += [tail, 7] }) }
        let other = try scheduler.submit(Self.request(500..<504, new: 1))
        var fed = 0
        var cached: [Int] = []
        while !scheduler.isIdle {
            let (tokens, events) = step(&scheduler)
            fed += tokens.values.reduce(0, +)
            for case .started(let id, _, _, let count) in events where id != other { cached.append(count) }
        }
        #expect(cached == [0, 40, 40] && fed == 40 + 3 * 2 + 4)
    }

    @Test("a prompt does not wait for what others compute slowly")
    mutating func slowPrefix() throws {
        // 40 tokens take 4 s, 8 steps 0.24 s.
        var scheduler = Self.scheduler(chunk: 16, secondsPerToken: 0.1)
        for tail: Int32 in [100, 200] { _ = try scheduler.submit(Self.request(0..<40, new: 1) { $0.prompt += [tail, 7] }) }
        #expect(step(&scheduler).fed.count == 2)
    }

    @Test("choices share their prompt's blocks and differ from the last token on")
    mutating func choices() throws {
        var scheduler = Self.scheduler()
        let id = try scheduler.submit(Self.request(0..<9, new: 1) { $0.choices = 3 })
        #expect(step(&scheduler).fed == [0: 8])
        #expect(scheduler.pool.usedCount == 2)
        let (fed, events) = step(&scheduler)
        #expect(fed == [0: 1, 1: 1, 2: 1])
        #expect(events.count { if case .finished(id, _, .length) = $0 { true } else { false } } == 3)
    }

    @Test("a prompt beside decoding rows gets what the target time leaves, in steps of 32")
    mutating func budget() throws {
        // 1 ms a token, 100 ms a step: 99 tokens beside one decoding row, so 96.
        var scheduler = Self.scheduler(chunk: 512) { $0.targetStep = .milliseconds(100) }
        _ = try scheduler.submit(Self.request(0..<2, new: 50))
        step(&scheduler)
        _ = try scheduler.submit(Self.request(100..<400))
        #expect(step(&scheduler).fed == [0: 1, 1: 96])
    }

    @Test("a step of prompts alone may be larger than one in which rows decode")
    mutating func mixedChunk() throws {
        var scheduler = Self.scheduler(chunk: 256) {
            $0.targetStep = .seconds(10)
            $0.mixedChunkTokens = 64
        }
        _ = try scheduler.submit(Self.request(0..<300, new: 50))
        #expect(step(&scheduler).fed == [0: 256])
        #expect(step(&scheduler).fed == [0: 44])
        _ = try scheduler.submit(Self.request(400..<700))
        #expect(step(&scheduler).fed == [0: 1, 1: 63])
    }

    @Test("half of the budget goes to the oldest prompt, the rest to the shortest")
    mutating func shares() throws {
        var scheduler = Self.scheduler(chunk: 128)
        for size: Int32 in [500, 300, 20] { _ = try scheduler.submit(Self.request(size * 1000..<size * 1001)) }
        #expect(step(&scheduler).fed == [0: 64, 1: 44, 2: 20])
    }

    @Test("a prompt is overtaken eight times, not more")
    mutating func overtaking() throws {
        var scheduler = Self.scheduler(slots: 8, context: 5000, chunk: 64, blocks: 5000)
        _ = try scheduler.submit(Self.request(0..<4000, new: 1))
        _ = try scheduler.submit(Self.request(10_000..<10_400, new: 1))
        var steps = 0
        var isServed = false
        while !isServed, steps < 50 {
            _ = try scheduler.submit(Self.request(Int32(20_000 + 100 * steps)..<Int32(20_032 + 100 * steps), new: 1))
            let fed = step(&scheduler).fed
            isServed = fed[1] != nil
            steps += 1
        }
        #expect(steps == 9)
    }

    @Test("among clients the one served least goes first, whoever came first")
    mutating func fairness() throws {
        var scheduler = Self.scheduler(slots: 1)
        var ids: [String: [RequestID]] = [:]
        for client in ["a", "a", "a", "b"] {
            let start = Int32(ids.values.joined().count * 100)
            ids[client, default: []].append(try scheduler.submit(Self.request(start..<start + 10, new: 1) { $0.client = client }))
        }
        var order: [RequestID] = []
        while !scheduler.isIdle {
            for case .started(let id, _, _, _) in step(&scheduler).events { order.append(id) }
        }
        #expect(order == [ids["a"]?[0], ids["b"]?[0], ids["a"]?[1], ids["a"]?[2]].compactMap { $0 })
    }

    @Test("prompts count as service, too")
    mutating func fairnessOfPrompts() throws {
        var scheduler = Self.scheduler(slots: 1)
        var names: [RequestID: String] = [:]
        for (name, client, prompt) in [
            ("a1", "a", 0..<100), ("b1", "b", 200..<202), ("a2", "a", 300..<302), ("b2", "b", 400..<402),
        ] as [(String, String, Range<Int32>)] {
            names[try scheduler.submit(Self.request(prompt, new: 3) { $0.client = client })] = name
        }
        var order: [String] = []
        while !scheduler.isIdle {
            for case .started(let id, _, _, _) in step(&scheduler).events { order.append(names[id] ?? "?") }
        }
        #expect(order == ["a1", "b1", "b2", "a2"])
    }

    @Test("a request waits while it would leave no block for a row that runs")
    mutating func reservedBlocks() throws {
        var scheduler = Self.scheduler(blocks: 4)
        _ = try scheduler.submit(Self.request(0..<3, new: 6))
        step(&scheduler)
        _ = try scheduler.submit(Self.request(100..<110, new: 1))
        step(&scheduler)
        #expect(scheduler.runningCount == 1 && scheduler.waitingCount == 1)
        while !scheduler.isIdle { step(&scheduler) }
    }

    @Test("without blocks the newest is preempted, and later gives the same tokens")
    mutating func preemption() throws {
        // 8 blocks of 4: two sequences of up to 20 tokens cannot both end.
        var scheduler = Self.scheduler(context: 24, blocks: 8)
        let old = try scheduler.submit(Self.request(0..<10, new: 10))
        let new = try scheduler.submit(Self.request(100..<110, new: 10))
        var events: [SchedulerEvent] = []
        while !scheduler.isIdle { events += step(&scheduler).events }
        #expect(events.contains(.preempted(new, choice: 0)))
        #expect(!events.contains(.preempted(old, choice: 0)))
        for id in [old, new] { #expect(events.count { $0 == .token(id, choice: 0, 9) } == 10) }
    }

    @Test("a prompt that finds no blocks beside rows that decode waits for them, and keeps what it has")
    mutating func patience() throws {
        // Both grow by a token a step; the prompt comes to the end of a block first.
        var scheduler = Self.scheduler(context: 30, chunk: 2, blocks: 8)
        let old = try scheduler.submit(Self.request(0..<22, new: 1))
        step(&scheduler)
        _ = try scheduler.submit(Self.request(100..<103, new: 20))
        var fed = 2
        var waited = 0
        while !scheduler.isIdle {
            step(&scheduler)
            guard scheduler.chosenTokens(slot: 0).isEmpty, fed < 22 else { continue }
            guard let row = plan.rows.first(where: { $0.slot == 0 }) else {
                waited += 1
                continue
            }
            #expect(row.start == fed, "of request \(old.number)")
            fed += row.tokens.count
        }
        #expect(fed == 22 && waited > 0)
    }

    @Test("a row whose selection fails ends, its neighbours go on")
    mutating func failedRow() throws {
        var scheduler = Self.scheduler()
        let bad = try scheduler.submit(Self.request(0..<2))
        let good = try scheduler.submit(Self.request(10..<12))
        _ = scheduler.plan(now: .zero, into: &plan)
        let events = scheduler.complete([.failed("NaN"), .token(5)], seconds: 0)
        #expect(events == [.finished(bad, choice: 0, .failed("NaN")), .token(good, choice: 0, 5)])
        #expect(scheduler.runningCount == 1)
    }

    @Test("what has ended takes no token of the step that ran meanwhile")
    mutating func cancelledMeanwhile() throws {
        var scheduler = Self.scheduler()
        let id = try scheduler.submit(Self.request(0..<2))
        _ = scheduler.plan(now: .zero, into: &plan)
        #expect(scheduler.cancel(id) == [.finished(id, choice: 0, .cancelled)])
        #expect(scheduler.complete([.token(5)], seconds: 0) == [])
        #expect(scheduler.isIdle && scheduler.pool.usedCount == 0)
    }

    @Test("a deadline ends what runs and what waits")
    mutating func deadlines() throws {
        var scheduler = Self.scheduler(slots: 1)
        let running = try scheduler.submit(Self.request(0..<2, new: 50) { $0.deadline = .seconds(1) })
        let waiting = try scheduler.submit(Self.request(0..<2, new: 50) { $0.deadline = .seconds(1) })
        step(&scheduler, at: .milliseconds(999))
        #expect(scheduler.runningCount == 1 && scheduler.waitingCount == 1)
        let events = step(&scheduler, at: .seconds(1)).events
        #expect(events == [.finished(waiting, choice: 0, .deadline), .finished(running, choice: 0, .deadline)])
    }

    @Test("what cannot run is refused when it comes, with what was found")
    func refusals() throws {
        var scheduler = Self.scheduler(slots: 2, context: 50) {
            $0.queuedRequests = 2
            $0.queuedTokens = 60
        }
        #expect(throws: EngineError.emptyPrompt) { try scheduler.submit(Self.request(0..<0)) }
        #expect(throws: EngineError.invalidCount(field: "maxNewTokens", found: 0)) {
            try scheduler.submit(Self.request(0..<1, new: 0))
        }
        #expect(throws: EngineError.promptTooLong(tokens: 50, context: 50)) { try scheduler.submit(Self.request(0..<50)) }
        #expect(throws: EngineError.tooManyChoices(asked: 3, slots: 2)) {
            try scheduler.submit(Self.request(0..<1) { $0.choices = 3 })
        }
        _ = try scheduler.submit(Self.request(0..<40))
        #expect(throws: EngineError.queueHoldsTooManyTokens(tokens: 61, limit: 60)) { try scheduler.submit(Self.request(0..<21)) }
        _ = try scheduler.submit(Self.request(0..<20))
        #expect(throws: EngineError.queueIsFull(requests: 2)) { try scheduler.submit(Self.request(0..<1)) }
        scheduler.drain()
        #expect(throws: EngineError.isDraining) { try scheduler.submit(Self.request(0..<1)) }
    }

    @Test("the step's time is learned from steps", arguments: [(0.004, 0.0005, 0.001), (0.02, 0.003, 0)])
    func timeModel(_ a: Double, _ b: Double, _ c: Double) {
        var model = StepTimeModel(secondsPerToken: 0.01)
        for index in 0..<400 {
            let (tokens, lengths) = (1 + index * 37 % 256, index * 101 % 9000)
            model.observe(tokens: tokens, lengths: lengths, seconds: a + b * Double(tokens) + c * Double(lengths) / 1000)
        }
        let expected = a + b * 100 + c * 5
        #expect(abs(model.seconds(tokens: 100, lengths: 5000) - expected) < 0.02 * expected)
        #expect(abs(model.tokens(within: expected, lengths: 5000) - 100) <= 3)
        model.observe(tokens: 1, lengths: 1, seconds: .nan)
        #expect(model.seconds(tokens: 1, lengths: 1).isFinite)
    }
}
