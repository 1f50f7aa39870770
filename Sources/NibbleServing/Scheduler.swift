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
    /// Sequences that wait for a slot: new ones and preempted ones.
    var waiting = WaitingRequests()
    var freeSlots: [Int]
    /// Answers of each request that have not ended.
    private var openChoices: [RequestID: Int] = [:]
    /// No request ends by its deadline before; `nil`: none has one.
    private var firstDeadline: Duration?
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

    /// - Precondition: at least one slot, and one block in each table.
    package init(limits: SchedulerLimits, pool: BlockPool, secondsPerToken: Double) {
        precondition(limits.slots > 0 && pool.tables.allSatisfy { $0.blockCount > 0 })
        self.limits = limits
        self.pool = pool
        time = StepTimeModel(secondsPerToken: secondsPerToken)
        freeSlots = (0..<limits.slots).reversed()
    }

    /// Tokens a sequence may hold: the context, or what the whole pool holds.
    package var capacity: Int { min(limits.context, pool.capacity(chunk: limits.chunkTokens)) }
    package var runningCount: Int { running.count }
    package var waitingCount: Int { waiting.count }
    package var waitingTokens: Int { waiting.tokens }
    package var isIdle: Bool { running.isEmpty && waiting.count == 0 }

    /// What was chosen so far for the sequence in a slot.
    package func chosenTokens(slot: Int) -> ArraySlice<Int32> {
        guard let sequence = running.first(where: { $0.slot == slot }) else { return [] }
        return sequence.tokens[sequence.request.prompt.count...]
    }

    // MARK: Requests

    /// Takes a request into the queue.
    /// - Throws: ``EngineError``
    package mutating func submit(_ request: ServingRequest) throws -> RequestID {
        guard !isDraining else { throw EngineError.isDraining }
        try limits.check(request, capacity: capacity, waiting: waiting.count, waitingTokens: waitingTokens)
        let id = RequestID(number: nextNumber)
        nextNumber += 1
        openChoices[id] = request.choices
        if let deadline = request.deadline { firstDeadline = min(firstDeadline ?? deadline, deadline) }
        waiting.begin(request.client)
        waiting.append(ServedSequence(id: id, request: request, cache: pool.emptySequence(root: request.root)))
        return id
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

    /// Ends what has reached its deadline.
    mutating func endLate(now: Duration, _ events: inout [SchedulerEvent]) {
        guard let first = firstDeadline, first <= now else { return }
        events += end(.deadline) { sequence in sequence.request.deadline.map { $0 <= now } ?? false }
        let deadlines = running.compactMap(\.request.deadline) + waiting.deadlines
        firstDeadline = deadlines.min()
    }

    private mutating func end(_ reason: ServingFinish, where matches: (ServedSequence) -> Bool) -> [SchedulerEvent] {
        var events: [SchedulerEvent] = []
        for index in running.indices.reversed() where matches(running[index]) { finishRunning(at: index, reason, &events) }
        for sequence in waiting.remove(where: matches) { finished(sequence, reason, &events) }
        return events.reversed()
    }

    /// Takes a sequence out of its slot for good.
    mutating func finishRunning(at index: Int, _ reason: ServingFinish, _ events: inout [SchedulerEvent]) {
        finished(leave(at: index), reason, &events)
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
    private mutating func finished(_ sequence: ServedSequence, _ reason: ServingFinish, _ events: inout [SchedulerEvent]) {
        let choices = sequence.choice...sequence.choice + sequence.pendingForks
        for choice in choices { events.append(.finished(sequence.id, choice: choice, reason)) }
        let open = (openChoices[sequence.id] ?? 0) - choices.count
        openChoices[sequence.id] = open > 0 ? open : nil
        if open <= 0 { waiting.end(sequence.request.client) }
    }
}
