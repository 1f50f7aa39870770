import Foundation

/// Hands elements from a thread to a task. The thread waits while the buffer is full; the task suspends while it is empty.
///
/// One producer, one consumer.
final class BoundedChannel<Element: Sendable>: @unchecked Sendable {
    private enum End {
        case finished
        case failed(any Error)
    }

    private let capacity: Int
    private let condition = NSCondition()
    // Guarded by `condition`.
    private var buffer: [Element] = []
    private var end: End?
    private var isCancelled = false
    private var waiter: CheckedContinuation<Element?, any Error>?

    init(capacity: Int) { self.capacity = max(capacity, 1) }

    /// Blocks the calling thread while the buffer is full.
    /// - Throws: `CancellationError` once the consumer is gone.
    func send(_ element: Element) throws {
        condition.lock()
        while buffer.count >= capacity && !isCancelled { condition.wait() }
        guard !isCancelled else {
            condition.unlock()
            throw CancellationError()
        }
        guard let waiter = takeWaiter() else {
            buffer.append(element)
            condition.unlock()
            return
        }
        condition.unlock()
        waiter.resume(returning: element)
    }

    /// - Throws: `CancellationError` once the consumer is gone.
    func checkCancellation() throws {
        condition.lock()
        defer { condition.unlock() }
        if isCancelled { throw CancellationError() }
    }

    func finish(throwing error: (any Error)? = nil) {
        condition.lock()
        end = error.map(End.failed) ?? .finished
        let waiter = takeWaiter()
        condition.unlock()
        guard let waiter else { return }
        if let error { waiter.resume(throwing: error) } else { waiter.resume(returning: nil) }
    }

    /// The next element; `nil` at the end.
    func next() async throws -> Element? {
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { register($0) }
        } onCancel: {
            cancel()
        }
    }

    /// Makes the producer's next call throw: the consumer is gone.
    func cancel() {
        condition.lock()
        isCancelled = true
        let waiter = takeWaiter()
        condition.broadcast()
        condition.unlock()
        waiter?.resume(throwing: CancellationError())
    }

    private func register(_ continuation: CheckedContinuation<Element?, any Error>) {
        condition.lock()
        let answer: Result<Element?, any Error>?
        if isCancelled {
            answer = .failure(CancellationError())
        } else if !buffer.isEmpty {
            answer = .success(buffer.removeFirst())
            condition.signal()
        } else if let end {
            switch end {
            case .finished: answer = .success(nil)
            case .failed(let error): answer = .failure(error)
            }
        } else {
            answer = nil
            waiter = continuation
        }
        condition.unlock()
        if let answer { continuation.resume(with: answer) }
    }

    private func takeWaiter() -> CheckedContinuation<Element?, any Error>? {
        defer { waiter = nil }
        return waiter
    }
}
