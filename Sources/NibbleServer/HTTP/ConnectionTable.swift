import NIOCore
import Synchronization

/// The open connections of a server, and room for new ones.
///
/// Clients that keep the server waiting make room for those that come: an attacker who opens connections and sends nothing whole
/// closes its own oldest ones. Connections whose requests are being answered stay.
final class ConnectionTable: Sendable {
    private struct State {
        var connections: [ObjectIdentifier: ConnectionState] = [:]
        var refused = 0
        var hasReported = false

        mutating func takeLongestWaiting() -> ConnectionState? {
            let waiting = connections.compactMap { key, connection in connection.waitingSince.map { (key, $0) } }
            guard let (key, _) = waiting.min(by: { $0.1 < $1.1 }) else { return nil }
            return connections.removeValue(forKey: key)
        }
    }

    private let state = Mutex(State())
    private let limit: Int
    private let report: @Sendable (String) -> Void

    /// - Parameter report: is told once that the limit is reached, and once that there are no descriptors.
    init(limit: Int, report: @escaping @Sendable (String) -> Void) {
        self.limit = limit
        self.report = report
    }

    enum Entry { case taken, refused, closed }

    /// Connections that were refused and still read their answer: further ones are closed without one.
    private static let refusedLimit = 32

    /// A connection has come. One that is refused or closed must leave, too.
    func enter(_ connection: ConnectionState) -> Entry {
        let (entry, victim, isFirst) = state.withLock { state -> (Entry, ConnectionState?, Bool) in
            guard state.connections.count >= limit else {
                state.connections[ObjectIdentifier(connection)] = connection
                return (.taken, nil, false)
            }
            defer { state.hasReported = true }
            guard let victim = state.takeLongestWaiting() else {
                guard state.refused < Self.refusedLimit else { return (.closed, nil, false) }
                state.refused += 1
                return (.refused, nil, !state.hasReported)
            }
            state.connections[ObjectIdentifier(connection)] = connection
            return (.taken, victim, !state.hasReported)
        }
        victim?.channel.close(promise: nil)
        if isFirst {
            report(
                "warning: \(limit) connections are open, as many as --max-connections allows: those that wait longest for their clients are closed"
            )
        }
        return entry
    }

    func leave(_ connection: ConnectionState, _ entry: Entry) {
        state.withLock { state in
            switch entry {
            case .taken: state.connections[ObjectIdentifier(connection)] = nil
            case .refused: state.refused -= 1
            case .closed: break
            }
        }
    }

    /// Closes connections that wait for their clients.
    /// - Parameter count: at most so many, those that wait longest.
    func close(_ count: Int) {
        let victims = state.withLock { state in (0..<count).compactMap { _ in state.takeLongestWaiting() } }
        for victim in victims { victim.channel.close(promise: nil) }
    }
}

/// What others may know of a connection.
final class ConnectionState: Sendable {
    let channel: any Channel
    /// In nanoseconds; 0: the server has all that it needs to answer.
    private let waiting: Atomic<UInt64>

    init(_ channel: any Channel) {
        self.channel = channel
        waiting = Atomic(NIODeadline.now().uptimeNanoseconds)
    }

    /// Since when it waits for its client to send a whole request; `nil` while a request is being answered.
    var waitingSince: UInt64? {
        let value = waiting.load(ordering: .relaxed)
        return value == 0 ? nil : value
    }

    func setWaiting(_ isWaiting: Bool) {
        waiting.store(isWaiting ? NIODeadline.now().uptimeNanoseconds : 0, ordering: .relaxed)
    }
}
