import Foundation
package import NibbleModels

/// What an engine is made with, beside its executor.
package struct EngineOptions: Sendable {
    /// Requests that may wait, and the tokens of their prompts together.
    package var queuedRequests = 512
    package var queuedTokens = Int.max
    /// How long a step should take while rows decode.
    package var targetStep: Duration = .milliseconds(30)
    /// A first guess at the time a token takes.
    package var secondsPerToken = 0.001

    package init() {}
}

/// Serves requests with one executor, or several that run the same model, for as long as it lives. A thread of its own owns
/// each executor and its scheduler; a request goes to the one with the fewest tokens before it.
///
/// Requests are independent: the tokens of one do not depend on the others, and its errors end it alone. Only a failing step
/// ends all that its executor runs; the others go on. Letting go of the engine stops it.
package final class TokenEngine: Sendable {
    package let limits: SchedulerLimits
    /// Tokens a sequence may hold.
    package let capacity: Int
    package let vocabularySize: Int
    /// The most tokens of an encoder's input; `nil` for decoders.
    package let encoderContext: Int?
    private let inboxes: [EngineInbox]

    private init(_ workers: [Worker]) {
        limits = workers[0].limits
        capacity = workers.reduce(.max) { min($0, $1.capacity) }
        vocabularySize = workers[0].vocabularySize
        encoderContext = workers[0].encoderContext
        inboxes = workers.map(\.inbox)
    }

    /// A thread with its executor, as everybody sees it.
    private struct Worker: Sendable {
        let limits: SchedulerLimits
        let capacity: Int
        let vocabularySize: Int
        let encoderContext: Int?
        let inbox: EngineInbox
    }

    /// What makes an executor, on the thread that will own it.
    package typealias ExecutorMaker = @Sendable () throws -> any StepRunning

    /// Starts the thread and makes the executor on it.
    /// - Throws: what `makeExecutor` throws.
    package static func start(
        _ options: EngineOptions = EngineOptions(), makeExecutor: @escaping ExecutorMaker
    ) async throws -> TokenEngine {
        try await start(options, makeExecutors: [makeExecutor])
    }

    /// Starts a thread for each executor. All run the same model, at the same size.
    /// - Throws: what one of `makeExecutors` throws; then no thread is left.
    package static func start(_ options: EngineOptions, makeExecutors: [ExecutorMaker]) async throws -> TokenEngine {
        precondition(!makeExecutors.isEmpty, "an engine without executors")
        var workers: [Worker] = []
        do {
            for make in makeExecutors { workers.append(try await worker(options, make)) }
        } catch {
            for worker in workers { worker.inbox.drain(until: .now) }
            throw error
        }
        return TokenEngine(workers)
    }

    private static func worker(_ options: EngineOptions, _ makeExecutor: @escaping ExecutorMaker) async throws -> Worker {
        let inbox = EngineInbox()
        return try await withCheckedThrowingContinuation { continuation in
            let body = ThreadBody(makeExecutor)
            let thread = Thread {
                body.run(options, inbox, continuation)
                inbox.threadHasEnded()
            }
            thread.name = "nibble.engine"
            thread.stackSize = 8 << 20
            thread.start()
        }
    }

    /// What the thread runs. It holds neither executor nor model when it has ended, so that a process may exit then: a GPU's
    /// memory must be freed before its driver ends.
    private final class ThreadBody: @unchecked Sendable {
        private var makeExecutor: ExecutorMaker?

        init(_ makeExecutor: @escaping ExecutorMaker) { self.makeExecutor = makeExecutor }

        func run(
            _ options: EngineOptions, _ inbox: EngineInbox, _ continuation: CheckedContinuation<Worker, any Error>
        ) {
            guard let make = makeExecutor else { return }
            makeExecutor = nil
            do {
                let loop = EngineLoop(try make(), options, inbox)
                continuation.resume(
                    returning: Worker(
                        limits: loop.limits, capacity: loop.capacity, vocabularySize: loop.vocabularySize,
                        encoderContext: loop.encoderContext, inbox: inbox))
                loop.run()
            } catch {
                continuation.resume(throwing: error)
            }
        }
    }

    deinit { for inbox in inboxes { inbox.drain(until: .now) } }

    /// Takes a request into the queue.
    /// - Parameters:
    ///   - submission: the request.
    ///   - listener: called on the engine's thread with all that comes, instead of the stream's reader. It must not wait.
    /// - Throws: ``EngineError`` for what cannot be run, a full queue, and an engine that has ended; ``ModelError`` for tokens that
    ///   the vocabulary does not have.
    package func submit(
        _ submission: Submission, listener: (@Sendable (Result<[AnswerPart]?, any Error>) -> Void)? = nil
    ) throws -> AnswerStream {
        var submission = submission
        for tokens in [submission.request.prompt, submission.encoderInput] {
            if let token = tokens.first(where: { $0 < 0 || Int($0) >= vocabularySize }) {
                throw ModelError.tokenOutOfRange(token: token, vocabularySize: vocabularySize)
            }
        }
        if let limit = encoderContext, submission.encoderInput.count > limit {
            throw EngineError.encoderInputTooLong(tokens: submission.encoderInput.count, limit: limit)
        }
        if let count = submission.logProbabilities, !(0...20).contains(count) {
            submission.logProbabilities = min(max(count, 0), 20)
        }
        let request = OpenRequest(submission)
        if let listener { request.mailbox.listen(listener) }
        let inbox = leastLoaded
        try inbox.submit(request, limits: limits, capacity: capacity)
        return AnswerStream(request, inbox, self)
    }

    /// Where a request finds the fewest tokens before it. Executors that have failed get none while another runs.
    private var leastLoaded: EngineInbox {
        guard inboxes.count > 1 else { return inboxes[0] }
        let loads = inboxes.map(\.load)
        let running = inboxes.indices.filter { loads[$0] != nil }
        return inboxes[running.min { loads[$0] ?? 0 < loads[$1] ?? 0 } ?? 0]
    }

    /// Of all executors together; failed if one of them is.
    package var status: EngineStatus { inboxes.dropFirst().reduce(inboxes[0].snapshot) { $0.merged(with: $1.snapshot) } }

    /// Calls `piece` on the thread of the engine's first executor, between steps, until it answers `true`. The thread owns the devices: nothing runs
    /// on them meanwhile. A piece holds all requests up and should be short.
    ///
    /// - Throws: ``EngineError``; what `piece` throws; `CancellationError` if the task is cancelled, before the next piece.
    package func perform(_ piece: @escaping @Sendable () throws -> Bool) async throws {
        try await perform(onExecutor: 0, piece)
    }

    /// The same on the thread of one of the executors, in the order in which they were made.
    package func perform(onExecutor index: Int, _ piece: @escaping @Sendable () throws -> Bool) async throws {
        let work = EngineWork(piece)
        try inboxes[index].submit(work, limit: limits.queuedRequests)
        try await work.wait()
    }

    /// Takes no new requests from now on. Those that are here run to their end, and then the thread ends.
    package func drain() { for inbox in inboxes { inbox.drain(until: nil) } }

    /// Drains, and after `timeout` ends what is left with ``EngineError/stopped``. Returns when the thread has ended; a step
    /// that is running is not interrupted.
    package func shutdown(timeout: Duration) async {
        for inbox in inboxes { inbox.drain(until: .now + timeout) }
        for inbox in inboxes { await inbox.waitForEnd() }
    }
}
