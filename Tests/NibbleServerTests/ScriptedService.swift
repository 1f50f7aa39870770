import NibbleCore
import NibbleModels
import NibbleServer
import NibbleTokenizers
import Synchronization

/// Answers every prompt with the same tokens, one at a time, so that what handlers make of them can be told exactly. It stands
/// in for an engine, whose own tests are elsewhere.
final class ScriptedService: CompletionService {
    let context: Int
    let vocabularySize: Int
    private let tokens: [Int32]
    private let pause: Duration
    private let finish: CompletionFinish
    private let refusal: ServiceRefusal?
    private let state = Mutex(State())

    private struct State {
        var jobs: [CompletionJob] = []
        var cancelled = 0
        var running = 0
        var health = ServiceHealth.alive
        var isHeld = false
    }

    /// - Parameter pause: before each token.
    init(
        _ tokens: [Int32], vocabularySize: Int, context: Int = 256, pause: Duration = .zero, finish: CompletionFinish = .stop,
        refusal: ServiceRefusal? = nil
    ) {
        self.tokens = tokens
        self.vocabularySize = vocabularySize
        self.context = context
        self.pause = pause
        self.finish = finish
        self.refusal = refusal
    }

    var jobs: [CompletionJob] { state.withLock { $0.jobs } }
    var cancelled: Int { state.withLock { $0.cancelled } }
    /// Whether answers wait before their next token.
    func hold(_ isHeld: Bool) { state.withLock { $0.isHeld = isHeld } }
    func set(_ health: ServiceHealth) { state.withLock { $0.health = health } }

    func submit(
        _ job: CompletionJob, deliver: @escaping @Sendable ([CompletionEvent]) -> Void
    ) throws -> any CompletionHandle {
        if let refusal { throw refusal }
        state.withLock {
            $0.jobs.append(job)
            $0.running += 1
        }
        let task = Task {
            deliver((0..<job.choices).map { .started(choice: $0, cachedTokens: 0) })
            var finish = finish
            for (index, token) in tokens.enumerated() {
                if index == job.maxNewTokens {
                    finish = .length
                    break
                }
                if pause > .zero { try? await Task.sleep(for: pause) }
                while state.withLock(\.isHeld), !Task.isCancelled { try? await Task.sleep(for: .milliseconds(2)) }
                if Task.isCancelled { break }
                let scores = job.logProbabilities.map { count in
                    TokenScores(
                        chosen: -0.5, top: (0..<count).map { TokenScore(token: Int32($0), logProbability: -Float($0) - 0.5) })
                }
                deliver((0..<job.choices).map { .token(choice: $0, token, scores) })
            }
            let isCancelled = Task.isCancelled
            state.withLock {
                $0.running -= 1
                if isCancelled { $0.cancelled += 1 }
            }
            deliver((0..<job.choices).map { .finished(choice: $0, isCancelled ? .cancelled : finish) })
        }
        return Handle(task: task)
    }

    func counts() -> ServiceCounts {
        var counts = ServiceCounts()
        counts.running = state.withLock { $0.running }
        return counts
    }

    func health() -> ServiceHealth { state.withLock { $0.health } }
    func stop() async {}

    private struct Handle: CompletionHandle {
        let task: Task<Void, Never>
        func cancel() { task.cancel() }
        func stop(choice: Int) {}
    }
}
