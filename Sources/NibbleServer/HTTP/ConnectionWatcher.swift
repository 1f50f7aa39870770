import Hummingbird
import NIOCore
import Synchronization

/// Notices that the other side of a connection has gone.
///
/// Connections may be half closed, so a client's FIN neither closes the channel nor cancels the handler's task, and a write
/// fails only later. Whoever answers a request leaves word here what to cancel. A client that shuts down its sending side
/// and still reads is taken for gone, too.
final class ConnectionWatcher: ChannelInboundHandler, RemovableChannelHandler, Sendable {
    typealias InboundIn = Any

    private struct State {
        var isGone = false
        var actions: [Int: @Sendable () -> Void] = [:]
        var next = 0
    }

    private let state = Mutex(State())

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if let event = event as? ChannelEvent, event == .inputClosed { leave() }
        context.fireUserInboundEventTriggered(event)
    }

    func channelInactive(context: ChannelHandlerContext) {
        leave()
        context.fireChannelInactive()
    }

    private func leave() {
        let actions = state.withLock { state in
            state.isGone = true
            defer { state.actions = [:] }
            return state.actions
        }
        for action in actions.values { action() }
    }

    /// Calls `action` once if the client goes, at once if it has gone already. Answers a number for ``forget(_:)``.
    func whenGone(_ action: @escaping @Sendable () -> Void) -> Int {
        let number = state.withLock { state -> Int? in
            guard !state.isGone else { return nil }
            state.next += 1
            state.actions[state.next] = action
            return state.next
        }
        guard let number else {
            action()
            return 0
        }
        return number
    }

    func forget(_ number: Int) { state.withLock { _ = $0.actions.removeValue(forKey: number) } }
}

extension Channel {
    /// Closes the connection in so many seconds.
    func close(after seconds: Double) {
        eventLoop.scheduleTask(in: .nanoseconds(Int64(seconds * 1e9))) { self.close(promise: nil) }
    }
}

/// A connection as handlers see it.
struct ServerContext: InitializableFromSource, Sendable {
    let channel: any Channel

    init(source: ApplicationRequestContextSource) { channel = source.channel }

    func watcher() async throws -> ConnectionWatcher { try await channel.pipeline.handler(type: ConnectionWatcher.self).get() }
}
