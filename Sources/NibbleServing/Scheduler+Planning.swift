package import NibbleModels

extension Scheduler {
    /// Fills `plan` with the next step; without rows if nothing can run. Answers what happened to requests meanwhile.
    /// - Parameter now: on the clock of the requests' deadlines.
    package mutating func plan(now: Duration, into plan: inout StepPlan) -> [SchedulerEvent] {
        plan.removeAll()
        pool.finishCopies()
        step.removeAll(keepingCapacity: true)
        var events: [SchedulerEvent] = []
        endLate(now: now, &events)
        admit(&events)
        planDecoding(&plan, &events)
        planPrompts(&plan, &events)
        plan.isSteady = waiting.count == 0 && plan.rows.allSatisfy { $0.wantsToken && $0.tokens.count == 1 }
        return events
    }

    // MARK: Admission

    private mutating func admit(_ events: inout [SchedulerEvent]) {
        while !freeSlots.isEmpty, let next = waiting.next, next.pendingForks < freeSlots.count,
            let cache = prefixThatFits(next), var sequence = waiting.removeNext()
        {
            sequence.cache = cache
            let slot = freeSlots.removeLast()
            sequence.slot = slot
            sequence.forkSlots = (0..<sequence.pendingForks).map { _ in freeSlots.removeLast() }
            waiting.charge(sequence.request.client, sequence.tokens.count - cache.length)
            events.append(.started(sequence.id, choice: sequence.choice, slot: slot, cachedTokens: cache.length))
            insertRunning(sequence)
            if sequence.remaining == 0 { fork(sequence.id, &events) }
        }
    }

    /// The blocks a sequence begins with, if there are enough for the rest of its tokens and one more, and one for each row
    /// that runs.
    private mutating func prefixThatFits(_ sequence: ServedSequence) -> SequenceBlocks? {
        let root = sequence.request.root
        let prefix = pool.knownPrefix(of: sequence.tokens, root: root)
        guard !isBeingComputed(sequence, known: prefix.length) else { return nil }
        let hasRoom = pool.hasRoom(
            for: prefix, length: sequence.tokens.count + 1, chunk: limits.chunkTokens,
            spare: running.count + sequence.pendingForks)
        if hasRoom { return pool.adopt(prefix, root: root) }
        // Alone it begins from nothing if it must: then the whole pool is its own.
        return running.isEmpty ? pool.emptySequence(root: root) : nil
    }

    /// Whether a prompt that runs will soon have computed more of what `sequence` begins with than the `known` tokens. Together
    /// they would compute it twice, and both be later for it.
    private func isBeingComputed(_ sequence: ServedSequence, known: Int) -> Bool {
        running.contains { prompt in
            guard prompt.remaining > 1, prompt.request.root == sequence.request.root else { return false }
            let limit = min(prompt.tokens.count, sequence.tokens.count - 1)
            var common = 0
            while common < limit, prompt.tokens[common] == sequence.tokens[common] { common += 1 }
            let shared = common / pool.blockSize * pool.blockSize
            let missing = shared - prompt.cache.length
            guard missing > 0, shared - known >= 2 * pool.blockSize else { return false }
            // Whoever stands behind it in the queue waits, too.
            return time.seconds(tokens: missing, lengths: 0) <= 8 * (limits.targetStep / .seconds(1))
        }
    }

    private mutating func insertRunning(_ sequence: ServedSequence) {
        let index = running.firstIndex { sequence.isOlder(than: $0) } ?? running.count
        running.insert(sequence, at: index)
    }

    /// Copies a sequence for the other choices of its request.
    mutating func fork(_ id: RequestID, _ events: inout [SchedulerEvent]) {
        guard let index = running.firstIndex(where: { $0.id == id && $0.pendingForks > 0 }) else { return }
        let leader = running[index]
        running[index].pendingForks = 0
        running[index].forkSlots = []
        for (offset, slot) in leader.forkSlots.enumerated() {
            let cache = pool.fork(leader.cache)
            insertRunning(ServedSequence(forkOf: leader, choice: offset + 1, cache: cache, slot: slot))
            events.append(.started(id, choice: offset + 1, slot: slot, cachedTokens: leader.cache.length))
        }
    }

    // MARK: Rows

    private mutating func planDecoding(_ plan: inout StepPlan, _ events: inout [SchedulerEvent]) {
        var index = 0
        while index < running.count {
            if !running[index].isDecoding || place(1, at: index, &plan, &events) {
                index += 1
            } else if index > 0 {
                events.append(preempt(at: index))
            } else {
                startAnew()
                index += 1
            }
        }
    }

    private mutating func planPrompts(_ plan: inout StepPlan, _ events: inout [SchedulerEvent]) {
        let prompts = promptOrder()
        guard let oldest = prompts.first else { return }
        let budget = promptBudget(plan)
        var counts = Array(repeating: 0, count: prompts.count)
        counts[0] = min(oldest.remaining, prompts.count > 1 ? max(budget / 2, 1) : budget)
        var left = budget - counts[0]
        for place in prompts.indices.dropFirst() {
            counts[place] = min(prompts[place].remaining, left)
            left -= counts[place]
        }
        counts[0] += min(oldest.remaining - counts[0], left)
        countOvertakings(prompts, counts)
        for (prompt, count) in zip(prompts, counts).map({ ($0, cut($1, of: $0)) }) where count > 0 {
            // Prompts that were placed before may have preempted it.
            guard let index = running.firstIndex(where: { $0.slot == prompt.slot && $0.id == prompt.id }) else { continue }
            if !place(count, at: index, &plan, &events), index == 0, plan.rows.isEmpty {
                startAnew()
                _ = place(count, at: index, &plan, &events)
            }
        }
    }

    /// States are shared only where a step ends with a block. So a prompt's chunks end with blocks, and its last tokens run apart
    /// if two blocks or more come before them.
    private func cut(_ count: Int, of prompt: ServedSequence) -> Int {
        guard pool.hasStates else { return count }
        let (start, size) = (prompt.cache.length, pool.blockSize)
        let shared = (prompt.tokens.count - 1) / size * size
        let end = start + count
        if end > shared { return shared > start && shared >= 2 * size ? shared - start : count }
        return end / size * size > start ? end / size * size - start : count
    }

    /// Tokens of prompts in a step: a full chunk if nothing decodes, else what the target time leaves, in steps of 32.
    private func promptBudget(_ plan: StepPlan) -> Int {
        let decoding = plan.rows.count
        guard decoding > 0 else { return limits.chunkTokens }
        let room = max(limits.mixedChunkTokens - decoding, 1)
        let lengths = plan.rows.reduce(0) { $0 + $1.start + 1 }
        let tokens = time.tokens(within: limits.targetStep / .seconds(1), lengths: lengths) - decoding
        return min(max(tokens / 32 * 32, 32), room)
    }

    /// The oldest prompt, then those that were overtaken often enough, then the others by what is left of them.
    private func promptOrder() -> [ServedSequence] {
        let prompts = running.filter { !$0.isDecoding && $0.remaining > 0 }
        guard let oldest = prompts.first else { return [] }
        return [oldest]
            + prompts.dropFirst().sorted { first, second in
                let hasWaited = (first.overtakings >= limits.overtakings, second.overtakings >= limits.overtakings)
                if hasWaited.0 != hasWaited.1 { return hasWaited.0 }
                if !hasWaited.0, first.remaining != second.remaining { return first.remaining < second.remaining }
                return first.isOlder(than: second)
            }
    }

    /// A prompt that gets nothing is overtaken if a younger one gets something.
    private mutating func countOvertakings(_ prompts: [ServedSequence], _ counts: [Int]) {
        for (prompt, count) in zip(prompts, counts) where count == 0 {
            let isOvertaken = zip(prompts, counts).contains { $1 > 0 && prompt.isOlder(than: $0) }
            guard isOvertaken, let index = running.firstIndex(where: { $0.slot == prompt.slot }) else { continue }
            running[index].overtakings += 1
        }
    }

    /// Puts the next `count` tokens of a sequence into the step, preempting newer ones if blocks are needed. Answers whether it
    /// could. `index` stays valid: only later places are preempted.
    private mutating func place(
        _ count: Int, at index: Int, _ plan: inout StepPlan, _ events: inout [SchedulerEvent]
    ) -> Bool {
        while !pool.hasRoom(adding: count, to: running[index].cache) {
            guard let victim = victim(after: index) else { return false }
            events.append(preempt(at: victim))
        }
        let start = running[index].cache.length
        guard let slot = running[index].slot, let copies = pool.append(count, to: &running[index].cache) else { return false }
        plan.copies += copies
        let sequence = running[index]
        let wantsToken = sequence.cache.length == sequence.tokens.count
        plan.addRow(
            slot: slot, tokens: sequence.tokens[start..<start + count], start: start, tables: sequence.cache.tables,
            wantsToken: wantsToken, counter: sequence.chosenCount)
        step.append(PlannedRow(id: sequence.id, slot: slot, tokenCount: count, wantsToken: wantsToken))
        return true
    }

    // MARK: Preemption

    /// Among the newest quarter of the sequences behind `index` that are not in the step, the one that loses the fewest tokens.
    private func victim(after index: Int) -> Int? {
        let candidates = running.indices.suffix(from: index + 1).filter { candidate in
            !step.contains { $0.slot == running[candidate].slot }
        }
        return candidates.suffix(max(running.count / 4, 1)).min { running[$0].cache.length < running[$1].cache.length }
    }

    private mutating func preempt(at index: Int) -> SchedulerEvent {
        let sequence = leave(at: index)
        waiting.insertPreempted(sequence)
        return .preempted(sequence.id, choice: sequence.choice)
    }

    /// The oldest sequence has no blocks although nothing else can be preempted: it shares one that it must copy. Without
    /// sharing it fits.
    private mutating func startAnew() {
        pool.release(&running[0].cache)
    }
}
