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

/// Serves requests with one executor, for as long as it lives. A thread of its own owns the executor and the scheduler.
///
/// Requests are independent: the tokens of one do not depend on the others, and its errors end it alone. Only a failing step
/// ends all of them, and the engine. Letting go of the engine stops it.
package final class TokenEngine: Sendable {
    package let limits: SchedulerLimits
    /// Tokens a sequence may hold.
    package let capacity: Int
    package let vocabularySize: Int
    /// The most tokens of an encoder's input; `nil` for decoders.
    package let encoderContext: Int?
    private let inbox: EngineInbox

    private init(_ loop: EngineLoop, _ inbox: EngineInbox) {
        limits = loop.limits
        capacity = loop.capacity
        vocabularySize = loop.vocabularySize
        encoderContext = loop.encoderContext
        self.inbox = inbox
    }

    /// Starts the thread and makes the executor on it.
    /// - Throws: what `makeExecutor` throws.
    package static func start(
        _ options: EngineOptions = EngineOptions(), makeExecutor: @escaping @Sendable () throws -> any StepRunning
    ) async throws -> TokenEngine {
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
        private var makeExecutor: (@Sendable () throws -> any StepRunning)?

        init(_ makeExecutor: @escaping @Sendable () throws -> any StepRunning) { self.makeExecutor = makeExecutor }

        func run(
            _ options: EngineOptions, _ inbox: EngineInbox, _ continuation: CheckedContinuation<TokenEngine, any Error>
        ) {
            guard let make = makeExecutor else { return }
            makeExecutor = nil
            do {
                let loop = EngineLoop(try make(), options, inbox)
                continuation.resume(returning: TokenEngine(loop, inbox))
                loop.run()
            } catch {
                continuation.resume(throwing: error)
            }
        }
    }

    deinit { inbox.drain(until: .now) }

    /// Takes a request into the queue.
    /// - Throws: ``EngineError`` for what cannot be run, a full queue, and an engine that has ended; ``ModelError`` for tokens that
    ///   the vocabulary does not have.
    package func submit(_ submission: Submission) throws -> AnswerStream {
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
        try inbox.submit(request, limits: limits, capacity: capacity)
        return AnswerStream(request, inbox, self)
    }

    /// Calls `piece` on the engine's thread, between steps, until it answers `true`. The thread owns the devices: nothing runs
    /// on them meanwhile. A piece holds all requests up and should be short.
    ///
    /// - Throws: ``EngineError``; what `piece` throws; `CancellationError` if the task is cancelled, before the next piece.
    package func perform(_ piece: @escaping @Sendable () throws -> Bool) async throws {
        let work = EngineWork(piece)
        try inbox.submit(work, limit: limits.queuedRequests)
        try await work.wait()
    }

    package var status: EngineStatus { inbox.snapshot }

    /// Takes no new requests from now on. Those that are here run to their end, and then the thread ends.
    package func drain() { inbox.drain(until: nil) }

    /// Drains, and after `timeout` ends what is left with ``EngineError/stopped``. Returns when the thread has ended; a step
    /// that is running is not interrupted.
    package func shutdown(timeout: Duration) async {
        inbox.drain(until: .now + timeout)
        await inbox.waitForEnd()
    }
}
