package import NibbleModels

/// Decides what runs in each step: a value without clock, threads or devices.
///
/// `plan(now:)` and `complete(_:seconds:)` take turns; requests come and go in between. Rules:
/// - Rows that decode are in every step. Prompts fill what is left of the step's target time, half of it for the oldest, the
///   rest for the shortest; no prompt is overtaken more often than ``SchedulerLimits/overtakings`` allows.
/// - A request begins when a slot is free and the pool has blocks for its prompt, one more for each row that runs.
///   Among clients the one that was served least goes first.
/// - When blocks run out, one of the newest sequences is preempted and later computed anew. The oldest never is, so that
///   work always ends.
package struct Scheduler: Sendable {
    package let limits: SchedulerLimits
    package internal(set) var pool: BlockPool
    package internal(set) var time: StepTimeModel
    /// Sequences in slots, the oldest first.
    var running: [ServedSequence] = []
    /// Sequences that wait for a slot, the oldest first: new ones and preempted ones.
    var waiting: [ServedSequence] = []
    var freeSlots: [Int]
    var service = ClientService()
    /// What the step that is running was asked for.
    var step: [PlannedRow] = []
    private var nextNumber: UInt64 = 1
    private var isDraining = false

    struct PlannedRow: Sendable {
        var id: RequestID
        var slot: Int
        var tokenCount: Int
        var wantsToken: Bool
    }

    /// - Precondition: at least one slot and one block.
    package init(limits: SchedulerLimits, pool: BlockPool, secondsPerToken: Double) {
        precondition(limits.slots > 0 && pool.blockCount > 0)
        self.limits = limits
        self.pool = pool
        time = StepTimeModel(secondsPerToken: secondsPerToken)
        freeSlots = (0..<limits.slots).reversed()
    }

    /// Tokens a sequence may hold: the context, or what the whole pool holds.
    package var capacity: Int { min(limits.context, pool.blockCount * pool.blockSize) }
    package var runningCount: Int { running.count }
    package var waitingCount: Int { waiting.count }
    package var waitingTokens: Int { waiting.reduce(0) { $0 + $1.tokens.count } }
    package var isIdle: Bool { running.isEmpty && waiting.isEmpty }

    // MARK: Requests

    /// Takes a request into the queue.
    /// - Throws: ``Refusal``
    package mutating func submit(_ request: ServingRequest) throws -> RequestID {
        try check(request)
        let id = RequestID(number: nextNumber)
        nextNumber += 1
        service.begin(request.client)
        waiting.append(ServedSequence(id: id, request: request))
        return id
    }

    private func check(_ request: ServingRequest) throws {
        guard !isDraining else { throw Refusal.isDraining }
        guard !request.prompt.isEmpty else { throw Refusal.emptyPrompt }
        guard request.maxNewTokens > 0 else {
            throw Refusal.invalidCount(field: "maxNewTokens", found: request.maxNewTokens)
        }
        guard request.choices > 0 else { throw Refusal.invalidCount(field: "choices", found: request.choices) }
        guard request.prompt.count < capacity else {
            throw Refusal.promptTooLong(tokens: request.prompt.count, context: capacity)
        }
        guard request.choices <= limits.slots else {
            throw Refusal.tooManyChoices(asked: request.choices, slots: limits.slots)
        }
        guard waiting.count < limits.queuedRequests else { throw Refusal.queueIsFull(requests: waiting.count) }
        let tokens = waitingTokens + request.prompt.count
        guard tokens <= limits.queuedTokens else {
            throw Refusal.queueHoldsTooManyTokens(tokens: tokens, limit: limits.queuedTokens)
        }
    }

    /// Ends all answers of a request.
    package mutating func cancel(_ id: RequestID) -> [SchedulerEvent] {
        end(.cancelled) { $0.id == id }
    }

    /// Ends one answer for a reason that only its text shows.
    package mutating func finish(_ id: RequestID, choice: Int, reason: ServingFinish) -> [SchedulerEvent] {
        end(reason) { $0.id == id && $0.choice == choice }
    }

    /// Ends everything, as a device that has failed must.
    package mutating func failAll(_ reason: String) -> [SchedulerEvent] {
        end(.failed(reason)) { _ in true }
    }

    /// Takes no requests from now on; those that are here run to their end.
    package mutating func drain() { isDraining = true }

    mutating func end(
        _ reason: ServingFinish, where matches: (ServedSequence) -> Bool
    ) -> [SchedulerEvent] {
        var events: [SchedulerEvent] = []
        for index in running.indices.reversed() where matches(running[index]) {
            events += finishRunning(at: index, reason)
        }
        for index in waiting.indices.reversed() where matches(waiting[index]) {
            let sequence = waiting.remove(at: index)
            events += finished(sequence, reason)
        }
        return events.reversed()
    }

    /// Takes a sequence out of its slot for good.
    mutating func finishRunning(at index: Int, _ reason: ServingFinish) -> [SchedulerEvent] {
        finished(leave(at: index), reason)
    }

    /// Takes a sequence out of its slot and gives its blocks back.
    mutating func leave(at index: Int) -> ServedSequence {
        var sequence = running.remove(at: index)
        pool.release(&sequence.cache)
        if let slot = sequence.slot { freeSlots.append(slot) }
        freeSlots += sequence.forkSlots
        sequence.slot = nil
        sequence.forkSlots = []
        return sequence
    }

    /// Choices that never began end with the one that they were to be copied from.
    private mutating func finished(_ sequence: ServedSequence, _ reason: ServingFinish) -> [SchedulerEvent] {
        let forks = (0..<sequence.pendingForks).map { sequence.choice + 1 + $0 }
        let events = ([sequence.choice] + forks).map { SchedulerEvent.finished(sequence.id, choice: $0, reason) }
        let isLast = !running.contains { $0.id == sequence.id } && !waiting.contains { $0.id == sequence.id }
        if isLast { service.end(sequence.request.client) }
        return events
    }
}
