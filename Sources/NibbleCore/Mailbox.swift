import Synchronization

/// What a ``Mailbox`` holds.
package protocol MailboxContent: Sendable {
    associatedtype News: Sendable

    /// Takes what the reader gets next; `nil` if it has seen everything.
    mutating func takeNews() -> News?
}

/// Hands what a thread makes to the one task that reads it, or to a listener. The thread never waits.
package final class Mailbox<Content: MailboxContent>: Sendable {
    /// News; `nil` after the end, or why it ended.
    package typealias Answer = Result<Content.News?, any Error>

    private enum Reader {
        case waiter(CheckedContinuation<Content.News?, any Error>)
        case listener(@Sendable (Answer) -> Void)
    }

    private struct State {
        var content: Content
        var end: Result<Void, any Error>?
        var reader: Reader?

        /// What the reader gets now; `nil` if it has to wait.
        mutating func answer() -> Answer? {
            if let news = content.takeNews() { return .success(news) }
            return end.map { $0.map { nil } }
        }

        /// A task reads once for each time it waits, a listener until it has heard the end.
        mutating func delivery() -> (Reader, Answer)? {
            guard let reader, let answer = answer() else { return nil }
            if case .listener = reader, case .success(.some) = answer { return (reader, answer) }
            self.reader = nil
            return (reader, answer)
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

    /// Hands the news to a reader that waits, or to the listener.
    package func wakeReader() {
        while let (reader, answer) = state.withLock({ $0.delivery() }) {
            switch reader {
            case .waiter(let waiter): waiter.resume(with: answer)
            case .listener(let listener): listener(answer)
            }
        }
    }

    /// Calls `listener` with the news, in order, instead of keeping them for ``next()``. It is called by whoever calls ``wakeReader()`` and
    /// ``close(throwing:)``, which must be one thread; the last call has the end. Only before there is anything to read.
    package func listen(_ listener: @escaping @Sendable (Answer) -> Void) {
        state.withLock { $0.reader = .listener(listener) }
    }

    /// What has come since the last call; `nil` after the end. One reader at a time.
    /// - Throws: what ``close(throwing:)`` was given; `CancellationError` if the task is cancelled.
    package func next() async throws -> Content.News? {
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { waiter in
                let answer = state.withLock { state in
                    let answer = state.answer()
                    if answer == nil { state.reader = .waiter(waiter) }
                    return answer
                }
                if let answer { waiter.resume(with: answer) }
            }
        } onCancel: {
            close(throwing: CancellationError())
        }
    }
}
