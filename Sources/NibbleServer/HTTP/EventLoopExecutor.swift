import NIOCore
import NIOPosix

/// Runs tasks on the event loop of a connection.
///
/// A streamed token then wakes one thread, which reads, writes and sends the tokens of all its connections in one turn. On the
/// default executor each token wakes a thread to read it and another to send it. Only for tasks that never compute for long:
/// the loop serves other connections, too.
final class EventLoopExecutor: TaskExecutor {
    private let loop: any EventLoop

    init(_ loop: any EventLoop) { self.loop = loop }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        loop.execute { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }

    /// The event loops of all servers: one for every four cores, because the engine's threads need the others.
    static let loops = MultiThreadedEventLoopGroup(numberOfThreads: max(System.coreCount / 4, 1))
}
