import Synchronization

/// Events on their way from the engine's thread to the task that writes them. The reader takes all there is, so that a slow
/// reader gets fewer and larger pieces and never holds the engine. What it holds is bounded by the request's token limits.
final class Mailbox<Event: Sendable>: Sendable {
    enum Delivery: Sendable {
        /// Nothing has come, but the reader was woken.
        case silence
        case events([Event])
        case failed(any Error)
    }

    private struct State {
        var events: [Event] = []
        var failure: (any Error)?
        var isWoken = false
        var reader: UnsafeContinuation<Delivery, Never>?

        mutating func delivery() -> Delivery? {
            if !events.isEmpty {
                defer { events = [] }
                return .events(events)
            }
            if let failure { return .failed(failure) }
            if isWoken {
                isWoken = false
                return .silence
            }
            return nil
        }
    }

    private let state = Mutex(State())

    func post(_ events: [Event]) {
        change { state in
            if state.events.isEmpty { state.events = events } else { state.events += events }
        }
    }

    /// Ends the reading once what came before has been read.
    func fail(_ error: any Error) { change { if $0.failure == nil { $0.failure = error } } }

    /// Lets a waiting reader go on.
    func wake() { change { $0.isWoken = $0.reader != nil } }

    private func change(_ body: (inout State) -> Void) {
        let resumed = state.withLock { state -> (UnsafeContinuation<Delivery, Never>, Delivery)? in
            body(&state)
            guard let reader = state.reader, let delivery = state.delivery() else { return nil }
            state.reader = nil
            return (reader, delivery)
        }
        if let (reader, delivery) = resumed { reader.resume(returning: delivery) }
    }

    /// What has come since the last call; waits for something. One reader at a time.
    func take() async -> Delivery {
        await withTaskCancellationHandler {
            await withUnsafeContinuation { continuation in
                let delivery = state.withLock { state -> Delivery? in
                    if let delivery = state.delivery() { return delivery }
                    state.reader = continuation
                    return nil
                }
                if let delivery { continuation.resume(returning: delivery) }
            }
        } onCancel: {
            fail(CancellationError())
        }
    }
}
