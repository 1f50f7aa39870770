import Synchronization

/// Where the server is in its life, and the requests it answers.
final class ServerLife: Sendable {
    enum Phase: Sendable { case starting, ready, draining, stopped }

    private struct State {
        var phase = Phase.starting
        var nextID = 0
        /// What ends each request that is being answered.
        var requests: [Int: @Sendable (any Error) -> Void] = [:]
    }

    private let state = Mutex(State())

    var phase: Phase { state.withLock { $0.phase } }
    var openRequests: Int { state.withLock { $0.requests.count } }

    func enter(_ phase: Phase) { state.withLock { $0.phase = phase } }

    /// A request begins. It lasts as long as the answer lives.
    /// - Parameter end: called if the server stops first.
    func begin(_ end: @escaping @Sendable (any Error) -> Void) throws -> OpenRequest {
        let id = try state.withLock { state in
            guard state.phase == .ready else { throw APIError.stopping }
            state.nextID += 1
            state.requests[state.nextID] = end
            return state.nextID
        }
        return OpenRequest(id: id, life: self)
    }

    fileprivate func end(_ id: Int) { state.withLock { _ = $0.requests.removeValue(forKey: id) } }

    /// Ends all requests with an error.
    func endAll(_ error: any Error) {
        let requests = state.withLock { $0.requests }
        for end in requests.values { end(error) }
    }
}

/// Counts a request for as long as somebody holds it, also if its answer is never written.
final class OpenRequest: Sendable {
    private let id: Int
    private let life: ServerLife

    fileprivate init(id: Int, life: ServerLife) {
        self.id = id
        self.life = life
    }

    deinit { life.end(id) }
}
