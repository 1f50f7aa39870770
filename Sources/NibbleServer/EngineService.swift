package import Foundation
package import Nibble
import NibbleCore
package import NibbleModels
import NibbleServing
import Synchronization

/// The façade's engine as handlers need it.
package struct EngineService: CompletionService {
    private let engine: TokenEngine
    private let owner: Engine
    private let slots: Int
    private let shelf: AdapterShelf

    /// - Parameters:
    ///   - engine: what runs the requests.
    ///   - readAdapter: reads an adapter's folder for the engine's model; `nil`: there are no adapters.
    package init(
        _ engine: Engine, readAdapter: (@Sendable (_ folder: URL, _ name: String) throws -> LowRankAdapter)? = nil
    ) {
        owner = engine
        shelf = AdapterShelf(engine, read: readAdapter)
        self.engine = engine.tokenEngine
        slots = engine.tokenEngine.limits.slots
    }

    package var context: Int { engine.capacity }
    package var vocabularySize: Int { engine.vocabularySize }
    package var encoderContext: Int? { engine.encoderContext }

    private func submission(_ job: CompletionJob) throws -> Submission {
        let isEncoderDecoder = engine.encoderContext != nil
        let prompt = isEncoderDecoder ? try EngineRequest.decoderStart(owner.model.generationConfig) : job.prompt
        var request = ServingRequest(prompt: prompt, maxNewTokens: job.maxNewTokens)
        request.choices = job.choices
        request.stopTokens = Set(job.endTokens)
        request.client = job.client
        request.root = Self.root(job.cacheSalt)
        var submission = Submission(request, selection: job.selection)
        if isEncoderDecoder { submission.encoderInput = job.prompt }
        submission.logProbabilities = job.logProbabilities
        submission.timeLimit = job.timeLimit
        submission.masks = try job.grammar.map { try owner.masks($0.grammar, ends: $0.ends, marks: $0.marks) }
        return submission
    }

    /// Hash values are seeded by the process, so that no client can find another salt of the same number.
    private static func root(_ salt: String) -> PrefixRoot {
        salt.isEmpty ? .plain : PrefixRoot(number: UInt32(truncatingIfNeeded: salt.hashValue) | 1 << 31)
    }

    /// Events come from the engine's thread: a task between it and the reader would cost each token another turn of an event loop.
    package func submit(
        _ job: CompletionJob, deliver: @escaping @Sendable ([CompletionEvent]) -> Void
    ) throws -> any CompletionHandle {
        let adapters = try shelf.take(job.adapters)
        do {
            var submission = try submission(job)
            submission.adapters = adapters
            let open = OpenChoices(job.choices)
            let answers = try engine.submit(submission) { [shelf] answer in
                let events = open.events(answer)
                if !events.isEmpty { deliver(events) }
                if case .success(.some) = answer { return }
                shelf.release(adapters)
            }
            return EngineHandle(answers: answers)
        } catch {
            shelf.release(adapters)
            switch error {
            case let error as EngineError: throw refusal(error)
            case let error as ModelError: throw ServiceRefusal.invalid("\(error)", field: nil)
            default: throw error
            }
        }
    }

    package var embeddingWidth: Int? { owner.embeddingWidth }

    package var adapters: [ServedAdapter] { shelf.served }

    package func loadAdapter(_ name: String, path: String, replaces: Bool) async throws {
        do {
            try await shelf.load(name, path, replaces: replaces)
        } catch let error as EngineError {
            throw refusal(error)
        }
    }

    package func unloadAdapter(_ name: String) async throws -> Bool {
        do {
            return try await shelf.unload(name)
        } catch let error as EngineError {
            throw refusal(error)
        }
    }

    package func embeddings(of texts: [[Int32]], _ pooling: Pooling, adapters: [String: Float]) async throws -> [[Float]] {
        let weights = try shelf.take(adapters)
        defer { shelf.release(weights) }
        do {
            return try await owner.embeddings(of: texts, pooling, adapters: weights)
        } catch let error as EngineError {
            throw refusal(error)
        }
    }

    package func checkQueue() throws {
        let status = engine.status
        if status.waitingRequests >= engine.limits.queuedRequests {
            throw refusal(.queueIsFull(requests: status.waitingRequests))
        }
        if status.waitingTokens >= engine.limits.queuedTokens {
            throw refusal(.queueHoldsTooManyTokens(tokens: status.waitingTokens, limit: engine.limits.queuedTokens))
        }
    }

    private func refusal(_ error: EngineError) -> any Error {
        switch error {
        case .queueIsFull, .queueHoldsTooManyTokens: ServiceRefusal.busy("\(error)", retryAfter: 1)
        case .isDraining, .stopped: ServiceRefusal.stopping
        case .promptTooLong(let tokens, let context): ServiceRefusal.promptTooLong(tokens: tokens, context: context)
        case .encoderInputTooLong(let tokens, let limit): ServiceRefusal.encoderInputTooLong(tokens: tokens, limit: limit)
        case .tooManyChoices: ServiceRefusal.invalid("\(error)", field: "n")
        case .emptyPrompt, .invalidCount, .unsupported, .tooFewGPUs: ServiceRefusal.invalid("\(error)", field: nil)
        case .answerFailed, .engineFailed: APIError.server("\(error)")
        }
    }

    package func counts() -> ServiceCounts {
        let status = engine.status
        var counts = ServiceCounts()
        counts.running = status.running
        counts.waiting = status.waitingRequests
        counts.slots = slots
        counts.blocks = status.blocks
        counts.blocksInUse = status.usedBlocks
        counts.blockSize = KeyValueGeometry.blockSize
        counts.preemptions = status.preemptions
        counts.prefixQueriedTokens = status.promptTokens
        counts.prefixFoundTokens = status.cachedTokens
        counts.steps = status.steps
        counts.stepCounts = status.stepTokens.counts
        counts.stepTokenBounds = StepTokens.bounds
        counts.stepTokens = status.stepTokens.sum
        return counts
    }

    package func health() -> ServiceHealth {
        let status = engine.status
        if case .failed(let error) = status.life { return .failed("\(error)") }
        guard !status.isHealthy(), status.life == .running else { return .alive }
        return .stuck(seconds: (ContinuousClock.now - status.heartbeat.last) / .seconds(1))
    }

    package func stop() async { await owner.shutdown(timeout: .zero) }
}

/// The choices of a job that have not ended, and what the engine tells of them as events.
private final class OpenChoices: Sendable {
    private let open: Mutex<Set<Int>>

    init(_ count: Int) { open = Mutex(Set(0..<count)) }

    func events(_ answer: Result<[AnswerPart]?, any Error>) -> [CompletionEvent] {
        switch answer {
        case .success(let parts): parts?.flatMap(events) ?? []
        case .failure(let error): fail("\(error)")
        }
    }

    private func events(_ part: AnswerPart) -> [CompletionEvent] {
        var events: [CompletionEvent] = []
        if let cached = part.cachedTokens { events.append(.started(choice: part.choice, cachedTokens: cached)) }
        for (index, token) in part.tokens.enumerated() {
            events.append(.token(choice: part.choice, token, index < part.scores.count ? part.scores[index] : nil))
        }
        if let finish = part.finish, open.withLock({ $0.remove(part.choice) }) != nil {
            events.append(.finished(choice: part.choice, CompletionFinish(finish)))
        }
        return events
    }

    private func fail(_ reason: String) -> [CompletionEvent] {
        let choices = open.withLock { open in
            defer { open = [] }
            return open.sorted()
        }
        return choices.map { .finished(choice: $0, .failed(reason)) }
    }
}

private struct EngineHandle: CompletionHandle {
    let answers: AnswerStream

    func cancel() { answers.cancel() }
    func stop(choice: Int) { answers.finish(choice: choice) }
}

extension CompletionFinish {
    init(_ finish: ServingFinish) {
        self =
            switch finish {
            case .stopToken, .stopString, .complete: .stop
            case .length: .length
            case .deadline: .timeLimit
            case .cancelled: .cancelled
            case .failed(let reason): .failed(reason)
            }
    }
}
