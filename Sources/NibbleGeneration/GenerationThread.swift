import Foundation
import Synchronization

/// Runs the generations of a model on one thread, a step of each in turn. The thread lives while there is something to run.
package final class GenerationThread: Sendable {
    private struct State {
        var runs: [GenerationRun] = []
        var isRunning = false
    }

    private let state = Mutex(State())

    package init() {}

    /// Runs `run` until it ends or pauses.
    func add(_ run: GenerationRun) {
        let isIdle = state.withLock { state in
            state.runs.append(run)
            defer { state.isRunning = true }
            return !state.isRunning
        }
        guard isIdle else { return }
        let thread = Thread { [self] in
            var run = next(after: nil)
            while let current = run { run = next(after: current.step() ? current : nil) }
        }
        thread.name = "nibble.generate"
        // Leaves room for the caller's processors and criteria.
        thread.stackSize = 8 << 20
        thread.start()
    }

    /// The run whose turn it is, after `current` has got the last place.
    private func next(after current: GenerationRun?) -> GenerationRun? {
        state.withLock { state in
            if let current {
                if state.runs.isEmpty { return current }
                state.runs.append(current)
            }
            if state.runs.isEmpty {
                state.isRunning = false
                return nil
            }
            return state.runs.removeFirst()
        }
    }
}

/// A generation on its model's thread.
final class GenerationRun: @unchecked Sendable {
    // Used by the thread only.
    private var beginning: (generator: Generator, request: GenerationRequest)?
    private var loop: (any DecodingLoop)?

    private let flag: CancellationFlag
    private let onToken: (@Sendable (GeneratedToken) -> Void)?
    /// Asked after each step that was not the last.
    private let mustPause: @Sendable () -> Bool
    private let completion: @Sendable (Result<GenerationOutput, any Error>) -> Void

    /// - Parameters:
    ///   - flag: ends the generation before its next step, or within a long prompt.
    ///   - onToken: receives tokens as they are chosen. Not available with beams.
    ///   - mustPause: whether the generation pauses until it is added to its thread again.
    ///   - completion: receives the output, or what the generation threw, unless it was let go of while it paused.
    init(
        _ generator: Generator, _ request: GenerationRequest, _ flag: CancellationFlag,
        onToken: (@Sendable (GeneratedToken) -> Void)? = nil,
        mustPause: @escaping @Sendable () -> Bool = { false },
        completion: @escaping @Sendable (Result<GenerationOutput, any Error>) -> Void
    ) {
        var request = request
        let given = request.interruption
        request.interruption = {
            try flag.check()
            try given?()
        }
        beginning = (generator, request)
        self.flag = flag
        self.onToken = onToken
        self.mustPause = mustPause
        self.completion = completion
    }

    /// Returns whether another step is to follow at once.
    fileprivate func step() -> Bool {
        do {
            try flag.check()
            if let (generator, request) = beginning {
                beginning = nil
                loop = try generator.loop(request, onToken: onToken)
            }
            guard let output = try loop?.takeStep() else { return !mustPause() }
            end(.success(output))
        } catch {
            end(.failure(error))
        }
        return false
    }

    /// Lets go of the model first: a process may end with its last generation, and a GPU's memory must be freed before that.
    private func end(_ result: Result<GenerationOutput, any Error>) {
        beginning = nil
        loop = nil
        completion(result)
    }
}

/// Tells the thread that the task it works for was cancelled.
final class CancellationFlag: Sendable {
    private let isSet = Atomic<Bool>(false)

    func set() { isSet.store(true, ordering: .relaxed) }

    /// - Throws: `CancellationError` once it is set.
    func check() throws {
        if isSet.load(ordering: .relaxed) { throw CancellationError() }
    }
}
