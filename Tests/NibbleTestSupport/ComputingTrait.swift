import Foundation
public import Testing

/// Runs the tests of a suite on threads of their own.
///
/// Swift Testing starts all tests at once on the shared pool, which has one thread for each processor. Tests that
/// compute for minutes keep them all; a test that waits for a socket or cancels a task is then resumed minutes late.
public struct ComputingTrait: SuiteTrait, TestTrait, TestScoping {
    public var isRecursive: Bool { true }

    public func provideScope(
        for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
    ) async throws {
        try await withTaskExecutorPreference(ComputingExecutor.shared) { try await function() }
    }
}

extension Trait where Self == ComputingTrait {
    /// The suite computes for a second or more.
    public static var computing: Self { Self() }
}

/// One thread for each processor, and a queue of jobs.
private final class ComputingExecutor: TaskExecutor, @unchecked Sendable {
    static let shared = ComputingExecutor()

    /// Guards `jobs`.
    private let condition = NSCondition()
    private var jobs: [UnownedJob] = []

    private init() {
        for _ in 0..<ProcessInfo.processInfo.activeProcessorCount {
            let thread = Thread { [unowned self] in run() }
            thread.start()
        }
    }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        condition.withLock {
            jobs.append(job)
            condition.signal()
        }
    }

    private func run() {
        while true {
            next().runSynchronously(on: asUnownedTaskExecutor())
        }
    }

    private func next() -> UnownedJob {
        condition.withLock {
            while jobs.isEmpty { condition.wait() }
            return jobs.removeFirst()
        }
    }
}
