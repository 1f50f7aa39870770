import Foundation

/// What everybody shares with the engine's thread: messages to it, and what it tells of itself.
final class EngineInbox: @unchecked Sendable {
    enum Message {
        case submit(OpenRequest)
        case cancel(OpenRequest)
        case finish(OpenRequest, choice: Int, ServingFinish)
        case work(EngineWork)
    }

    /// What the thread is to do after it has read its messages.
    enum Order {
        case work
        /// Everything has ended, and nothing new will come.
        case leave
        /// The time to end in peace is over.
        case stop
    }

    private let condition = NSCondition()
    // Guarded by `condition`.
    private var messages: [Message] = []
    /// Requests in ``messages``, and the tokens of their prompts.
    private var queued = (requests: 0, tokens: 0)
    private var status = EngineStatus()
    /// Tokens of prompts and answers of the requests that have not ended.
    private var openTokens = 0
    /// Work that has not ended.
    private var openWorks = 0
    private var stopTime: ContinuousClock.Instant?
    private var hasEnded = false
    private var endWaiters: [CheckedContinuation<Void, Never>] = []

    private func locked<Value>(_ body: () throws -> Value) rethrows -> Value {
        condition.lock()
        defer { condition.unlock() }
        return try body()
    }

    var snapshot: EngineStatus {
        locked {
            var status = status
            status.waitingRequests += queued.requests
            status.waitingTokens += queued.tokens
            return status
        }
    }

    /// The tokens of the requests that have not ended; `nil` if no new one can be taken.
    var load: Int? { locked { status.life == .running ? openTokens : nil } }

    // MARK: Everybody's side

    /// - Throws: ``EngineError``
    func submit(_ request: OpenRequest, limits: SchedulerLimits, capacity: Int) throws {
        try locked {
            switch status.life {
            case .running: break
            case .draining, .stopped: throw EngineError.isDraining
            case .failed(let error): throw error
            }
            let wanted = request.submission.request
            try limits.check(
                wanted, capacity: capacity, waiting: status.waitingRequests + queued.requests,
                waitingTokens: status.waitingTokens + queued.tokens)
            if status.running == 0, status.waitingRequests == 0, queued.requests == 0 { status.heartbeat.last = .now }
            queued.requests += 1
            queued.tokens += wanted.prompt.count
            openTokens += wanted.tokenCount
            messages.append(.submit(request))
            condition.signal()
        }
    }

    func post(_ message: Message) {
        locked {
            switch status.life {
            case .running, .draining:
                messages.append(message)
                condition.signal()
            case .stopped, .failed: break
            }
        }
    }

    /// - Parameter limit: pieces of work that may be open at once.
    /// - Throws: ``EngineError`` where no more is taken.
    func submit(_ work: EngineWork, limit: Int) throws {
        try locked {
            switch status.life {
            case .running: break
            case .draining, .stopped: throw EngineError.isDraining
            case .failed(let error): throw error
            }
            guard openWorks < limit else { throw EngineError.queueIsFull(requests: openWorks) }
            openWorks += 1
            messages.append(.work(work))
            condition.signal()
        }
    }

    func workHasEnded() { locked { openWorks -= 1 } }

    /// No new requests from now on. What has not ended at `time` is ended then.
    func drain(until time: ContinuousClock.Instant?) {
        locked {
            if status.life == .running { status.life = .draining }
            if let time { stopTime = min(stopTime ?? time, time) }
            condition.signal()
        }
    }

    func waitForEnd() async {
        await withCheckedContinuation { waiter in
            let mustWait = locked {
                if !hasEnded { endWaiters.append(waiter) }
                return !hasEnded
            }
            if !mustWait { waiter.resume() }
        }
    }

    // MARK: The thread's side

    /// Moves all messages to `taken`, which must be empty. Sleeps while there is nothing to do.
    func take(_ taken: inout [Message], isIdle: Bool) -> Order {
        locked {
            while isIdle, messages.isEmpty, status.life == .running { condition.wait() }
            swap(&messages, &taken)
            status.waitingRequests += queued.requests
            status.waitingTokens += queued.tokens
            queued = (0, 0)
            if isIdle, taken.isEmpty { return .leave }
            return stopTime.map { $0 <= .now } ?? false ? .stop : .work
        }
    }

    func hasEnded(_ request: ServingRequest) { locked { openTokens -= request.tokenCount } }

    func update(_ change: (inout EngineStatus) -> Void) { locked { change(&status) } }

    /// The thread ends: later submissions are refused. Answers the messages that nobody will read.
    func close(_ life: EngineStatus.Life) -> [Message] {
        locked {
            status.life = life
            status.running = 0
            status.waitingRequests = 0
            status.waitingTokens = 0
            queued = (0, 0)
            defer { messages = [] }
            return messages
        }
    }

    /// Nothing of the thread's is left: executor and model are freed.
    func threadHasEnded() {
        let waiters: [CheckedContinuation<Void, Never>] = locked {
            hasEnded = true
            defer { endWaiters = [] }
            return endWaiters
        }
        for waiter in waiters { waiter.resume() }
    }
}
