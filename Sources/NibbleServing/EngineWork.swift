import Synchronization

/// Work that needs the devices beside the requests. It runs on the engine's thread, a piece between two steps.
final class EngineWork: Sendable {
    private let piece: @Sendable () throws -> Bool
    private let state = Mutex(State())

    private struct State {
        var waiter: CheckedContinuation<Void, any Error>?
        /// How it ended.
        var result: Result<Void, any Error>?
    }

    /// - Parameter piece: called on the engine's thread until it answers `true`.
    init(_ piece: @escaping @Sendable () throws -> Bool) { self.piece = piece }

    /// Runs one piece. Returns whether the work has ended.
    func runPiece() -> Bool {
        if state.withLock({ $0.result != nil }) { return true }
        do {
            guard try piece() else { return false }
            end(.success(()))
        } catch {
            end(.failure(error))
        }
        return true
    }

    func end(_ result: Result<Void, any Error>) {
        let waiter = state.withLock { state in
            if state.result == nil { state.result = result }
            defer { state.waiter = nil }
            return state.waiter
        }
        if let waiter { waiter.resume(with: state.withLock { $0.result ?? result }) }
    }

    /// Returns when the work has ended. Cancelling the task ends it before its next piece.
    func wait() async throws {
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { waiter in
                let result = state.withLock { state in
                    if state.result == nil { state.waiter = waiter }
                    return state.result
                }
                if let result { waiter.resume(with: result) }
            }
        } onCancel: {
            end(.failure(CancellationError()))
        }
    }
}
