import Synchronization

/// What a ``Mailbox`` holds.
package protocol MailboxContent: Sendable {
    associatedtype News: Sendable

    /// Takes what the reader gets next; `nil` if it has seen everything.
    mutating func takeNews() -> News?
}

/// Hands what a thread makes to the one task that reads it. The thread never waits.
package final class Mailbox<Content: MailboxContent>: Sendable {
    private typealias Waiter = CheckedContinuation<Content.News?, any Error>

    private struct State {
        var content: Content
        var end: Result<Void, any Error>?
        var waiter: Waiter?

        /// What the reader gets now; `nil` if it has to wait.
        mutating func answer() -> Result<Content.News?, any Error>? {
            if let news = content.takeNews() { return .success(news) }
            return end.map { $0.map { nil } }
        }
    }

    private let state: Mutex<State>

    package init(_ content: Content) { state = Mutex(State(content: content)) }

    /// Reads or changes the content. A waiting reader learns of it in ``wakeReader()``.
    package func withContent<Result: Sendable>(_ body: (inout Content) -> Result) -> Result {
        state.withLock { body(&$0.content) }
    }

    /// Ends the reading, once the reader has taken what is there. The first call decides.
    package func close(throwing error: (any Error)? = nil) {
        state.withLock { if $0.end == nil { $0.end = error.map { .failure($0) } ?? .success(()) } }
        wakeReader()
    }

    /// Hands the news to a reader that waits.
    package func wakeReader() {
        let (waiter, answer) = state.withLock { state -> (Waiter?, Result<Content.News?, any Error>?) in
            guard let waiter = state.waiter, let answer = state.answer() else { return (nil, nil) }
            state.waiter = nil
            return (waiter, answer)
        }
        if let waiter, let answer { waiter.resume(with: answer) }
    }

    /// What has come since the last call; `nil` after the end. One reader at a time.
    /// - Throws: what ``close(throwing:)`` was given; `CancellationError` if the task is cancelled.
    package func next() async throws -> Content.News? {
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { waiter in
                let answer = state.withLock { state in
                    let answer = state.answer()
                    if answer == nil { state.waiter = waiter }
                    return answer
                }
                if let answer { waiter.resume(with: answer) }
            }
        } onCancel: {
            close(throwing: CancellationError())
        }
    }
}
