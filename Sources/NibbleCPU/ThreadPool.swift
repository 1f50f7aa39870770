internal import CNibbleCPU

/// A fixed set of threads that runs loops over rows with the kernels of one instruction level.
///
/// The calling thread takes part. A dispatch costs a few microseconds and, with a C task, allocates nothing. Items are
/// split by index, so that the same thread touches the same rows each time. Callers on several threads take turns. A
/// dispatch from inside a task runs inline.
package final class ThreadPool: @unchecked Sendable {
    private let handle: OpaquePointer
    package let threadCount: Int
    package let level: InstructionLevel

    /// - Parameters:
    ///   - threads: how many, the caller included; `nil` means one per core this process may use.
    ///   - level: whose kernels the threads run.
    package init(threads: Int? = nil, level: InstructionLevel = .standard) {
        let wanted = min(max(threads ?? ThreadPool.availableCores, 1), 1024)
        guard let handle = nibble_pool_create(Int32(wanted)) else { fatalError("no memory for a thread pool") }
        self.handle = handle
        self.level = level
        threadCount = Int(nibble_pool_threads(handle))
    }

    deinit { nibble_pool_destroy(handle) }

    /// The kernels that tasks on this pool call.
    var kernels: OpaquePointer { level.kernels }

    /// Cores this process may use: its affinity mask without hyperthread siblings, limited by its control group's quota.
    package static var availableCores: Int { Int(nibble_available_cores()) }

    /// Runs `task` over `count` items. Each thread gets one contiguous range, in multiples of `grain`; if `isDynamic`, threads
    /// fetch `grain` items at a time.
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
            run(count: count, grain: grain, isDynamic: isDynamic, TaskBody(run: body)) { context, begin, end, thread in
                guard let context else { return }
                context.assumingMemoryBound(to: TaskBody.self).pointee.run(begin..<end, Int(thread))
            }
        }
    }

    private struct TaskBody {
        let run: (Range<Int>, Int) -> Void
    }

    /// Keeps other callers out while `body` runs, so that scratch memory keeps its contents across several dispatches.
    func exclusively<Result>(_ body: () throws -> Result) rethrows -> Result {
        nibble_pool_lock(handle)
        defer { nibble_pool_unlock(handle) }
        return try body()
    }
}
