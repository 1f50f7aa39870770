/// What an engine does and has done, as of its last step.
package struct EngineStatus: Sendable {
    package enum Life: Sendable, Equatable {
        case running
        /// Takes no new requests; those that are here run to their end.
        case draining
        case stopped
        case failed(EngineError)
    }

    package var life = Life.running
    /// Sequences in slots.
    package var running = 0
    package var waitingRequests = 0
    package var waitingTokens = 0
    /// Cache blocks that sequences hold, those that nobody holds and whose tokens are known, and all there are.
    package var usedBlocks = 0
    package var cachedBlocks = 0
    package var blocks = 0
    /// Since the start: prompts of requests that began, what of them was found in the cache, and what was chosen.
    package var promptTokens = 0
    package var cachedTokens = 0
    package var chosenTokens = 0
    package var preemptions = 0
    package var steps = 0
    package var stepTokens = StepTokens()
    package var heartbeat = Heartbeat()

    /// Signs of life of the engine's thread.
    package struct Heartbeat: Sendable {
        package var lastStepBegan: ContinuousClock.Instant?
        package var lastStepEnded: ContinuousClock.Instant?
        /// How long the last step was expected to take.
        package var predicted: Duration = .zero
        /// When the thread was last given something to do while it slept, or had anything done.
        package internal(set) var last = ContinuousClock.now
    }

    /// Whether the thread does its work: it is idle, or its last sign of life is younger than 10 s or than ten times the
    /// prediction for its step.
    package func isHealthy(at now: ContinuousClock.Instant = .now) -> Bool {
        switch life {
        case .failed, .stopped: return false
        case .running, .draining: break
        }
        let isIdle = running == 0 && waitingRequests == 0
        return isIdle || now - heartbeat.last < max(.seconds(10), heartbeat.predicted * 10)
    }

    /// The status of two executors of one engine.
    func merged(with other: EngineStatus) -> EngineStatus {
        var status = self
        if case .failed = life {} else if case .failed = other.life { status.life = other.life }
        for field: WritableKeyPath<EngineStatus, Int> in [
            \.running, \.waitingRequests, \.waitingTokens, \.usedBlocks, \.cachedBlocks, \.blocks, \.promptTokens, \.cachedTokens,
            \.chosenTokens, \.preemptions, \.steps,
        ] {
            status[keyPath: field] += other[keyPath: field]
        }
        status.stepTokens.add(other.stepTokens)
        // The one that has been silent for longer speaks for both.
        let isSilent = other.running + other.waitingRequests > 0 && other.heartbeat.last < heartbeat.last
        if isSilent || running + waitingRequests == 0 { status.heartbeat = other.heartbeat }
        return status
    }
}

/// How many tokens steps had, counted by upper bounds.
package struct StepTokens: Sendable {
    /// The last count is of steps beyond all bounds.
    package static let bounds = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384]
    package private(set) var counts = Array(repeating: 0, count: bounds.count + 1)
    package private(set) var sum = 0

    mutating func add(_ tokens: Int) {
        counts[Self.bounds.firstIndex { tokens <= $0 } ?? Self.bounds.count] += 1
        sum += tokens
    }

    mutating func add(_ other: StepTokens) {
        for index in counts.indices { counts[index] += other.counts[index] }
        sum += other.sum
    }
}
