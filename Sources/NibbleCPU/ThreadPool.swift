internal import CNibbleCPU

/// A fixed set of threads that runs loops over rows.
///
/// The calling thread takes part. A dispatch costs a few microseconds and, with a C task, allocates nothing. Items are
/// split by index, so that the same thread touches the same rows each time. Callers on several threads take turns; a
/// dispatch from inside a task runs inline.
package final class ThreadPool: @unchecked Sendable {
    private let handle: OpaquePointer
    package let threadCount: Int

    /// - Parameter threads: counting the caller; `nil` means one a core this process may use.
    package init(threads: Int? = nil) {
        let wanted = min(max(threads ?? ThreadPool.availableCores, 1), 1024)
        guard let handle = nibble_pool_create(Int32(wanted)) else { fatalError("no memory for a thread pool") }
        self.handle = handle
        threadCount = Int(nibble_pool_threads(handle))
    }

    deinit { nibble_pool_destroy(handle) }

    /// Cores this process may use: its affinity without hyperthread siblings, no more than its control group's quota.
    package static var availableCores: Int { Int(nibble_available_cores()) }

    /// Runs `task` over `count` items, one contiguous part a thread in multiples of `grain`; with `isDynamic`, `grain`
    /// items at a time to whichever thread is free.
    func run(
        count: Int, grain: Int = 1, isDynamic: Bool = false, context: UnsafeMutableRawPointer?, task: nibble_task
    ) {
        guard count > 0 else { return }
        if isDynamic {
            nibble_pool_run_dynamic(handle, count, grain, task, context)
        } else {
            nibble_pool_run(handle, count, grain, task, context)
        }
    }

    /// Runs `task` over `count` items with a C structure of arguments as its context.
    func run<Arguments>(
        count: Int, grain: Int = 1, isDynamic: Bool = false, _ arguments: Arguments, _ task: nibble_task
    ) {
        var arguments = arguments
        withUnsafeMutablePointer(to: &arguments) {
            run(count: count, grain: grain, isDynamic: isDynamic, context: UnsafeMutableRawPointer($0), task: task)
        }
    }

    /// Runs `body(items, thread)` over `count` items.
    package func parallel(count: Int, grain: Int = 1, isDynamic: Bool = false, _ body: (Range<Int>, Int) -> Void) {
        withoutActuallyEscaping(body) { body in
            run(count: count, grain: grain, isDynamic: isDynamic, Body(run: body)) { context, begin, end, thread in
                guard let context else { return }
                context.assumingMemoryBound(to: Body.self).pointee.run(begin..<end, Int(thread))
            }
        }
    }

    private struct Body {
        let run: (Range<Int>, Int) -> Void
    }

    /// Keeps other callers out while `body` runs, so that workspace may live across several dispatches.
    func exclusively<Result>(_ body: () throws -> Result) rethrows -> Result {
        nibble_pool_lock(handle)
        defer { nibble_pool_unlock(handle) }
        return try body()
    }
}
