/// Sequences that wait for a slot, by client, and how many tokens each client was served: the oldest sequence of the client
/// that was served least is the next.
///
/// A client that arrives begins at the least of the others: it may not claim the time when it was away. The next sequence is
/// found in time proportional to the clients with open requests, whatever waits.
struct WaitingRequests: Sendable {
    private struct Client: Sendable {
        var name: String
        var served: Int
        var openRequests: Int
        /// Both oldest first. Preempted sequences are older than new ones: they left the queue before them.
        var preempted: [ServedSequence] = []
        var new: [ServedSequence] = []
        /// Sequences of ``new`` before this place have left.
        var head = 0

        var first: ServedSequence? { preempted.first ?? (head < new.count ? new[head] : nil) }

        /// The age of ``first``, without a copy of it.
        var age: (number: UInt64, choice: Int)? {
            if !preempted.isEmpty { return (preempted[0].id.number, preempted[0].choice) }
            return head < new.count ? (new[head].id.number, new[head].choice) : nil
        }

        mutating func removeFirst() -> ServedSequence {
            if !preempted.isEmpty { return preempted.removeFirst() }
            let sequence = new[head]
            head += 1
            if head > 64, head > new.count / 2 {
                new.removeFirst(head)
                head = 0
            }
            return sequence
        }

        mutating func remove(where matches: (ServedSequence) -> Bool, into removed: inout [ServedSequence]) {
            new.removeFirst(head)
            head = 0
            removed += (preempted + new).filter(matches)
            preempted.removeAll(where: matches)
            new.removeAll(where: matches)
        }
    }

    private var clients: [Client] = []
    private var places: [String: Int] = [:]
    private(set) var count = 0
    /// Of all prompts, and of what was chosen before a preemption.
    private(set) var tokens = 0

    // MARK: Clients

    mutating func begin(_ name: String) {
        if let place = places[name] {
            clients[place].openRequests += 1
        } else {
            places[name] = clients.count
            clients.append(Client(name: name, served: clients.lazy.map(\.served).min() ?? 0, openRequests: 1))
        }
    }

    /// One of its requests has ended and none of its sequences waits.
    mutating func end(_ name: String) {
        guard let place = places[name] else { return }
        clients[place].openRequests -= 1
        guard clients[place].openRequests == 0 else { return }
        places[name] = nil
        let last = clients.removeLast()
        guard place < clients.count else { return }
        clients[place] = last
        places[last.name] = place
    }

    mutating func charge(_ name: String, _ tokens: Int) {
        if let place = places[name] { clients[place].served += tokens }
    }

    // MARK: Sequences

    /// - Precondition: its client has an open request.
    mutating func append(_ sequence: ServedSequence) {
        guard let place = places[sequence.request.client] else { preconditionFailure("the client has no open request") }
        clients[place].new.append(sequence)
        count += 1
        tokens += sequence.tokens.count
    }

    mutating func insertPreempted(_ sequence: ServedSequence) {
        guard let place = places[sequence.request.client] else { preconditionFailure("the client has no open request") }
        let index = clients[place].preempted.firstIndex { sequence.isOlder(than: $0) } ?? clients[place].preempted.count
        clients[place].preempted.insert(sequence, at: index)
        count += 1
        tokens += sequence.tokens.count
    }

    var next: ServedSequence? { nextPlace().flatMap { clients[$0].first } }

    mutating func removeNext() -> ServedSequence? {
        guard let place = nextPlace() else { return nil }
        let sequence = clients[place].removeFirst()
        count -= 1
        tokens -= sequence.tokens.count
        return sequence
    }

    private func nextPlace() -> Int? {
        guard count > 0 else { return nil }
        var best: (place: Int, served: Int, age: (UInt64, Int))?
        for place in clients.indices {
            let served = clients[place].served
            guard served <= best?.served ?? .max, let age = clients[place].age else { continue }
            if let best, served == best.served, age > best.age { continue }
            best = (place, served, age)
        }
        return best?.place
    }

    var deadlines: [Duration] {
        clients.flatMap { ($0.preempted + $0.new[$0.head...]).compactMap(\.request.deadline) }
    }

    /// Takes out what matches, the youngest first.
    mutating func remove(where matches: (ServedSequence) -> Bool) -> [ServedSequence] {
        var removed: [ServedSequence] = []
        for place in clients.indices { clients[place].remove(where: matches, into: &removed) }
        count -= removed.count
        for sequence in removed { tokens -= sequence.tokens.count }
        return removed.sorted { $1.isOlder(than: $0) }
    }
}
