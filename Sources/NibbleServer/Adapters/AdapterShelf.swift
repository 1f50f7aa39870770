import Foundation
import Nibble
import NibbleModels
import Synchronization

/// An adapter that requests can ask for as a model.
package struct ServedAdapter: Sendable, Equatable {
    package var name: String
    /// The folder it was read from.
    package var path: String
    /// The number by which llama.cpp's clients name it. It is not given again.
    package var number: Int
}

/// The adapters of an engine by name, and how many requests use each.
final class AdapterShelf: Sendable {
    /// Reads an adapter's folder for this engine's model.
    typealias Reader = @Sendable (_ folder: URL, _ name: String) throws -> LowRankAdapter

    private let engine: Engine
    private let read: Reader?
    private let state = Mutex(State())

    private struct Entry {
        var served: ServedAdapter
        var id: AdapterID
    }

    private struct State {
        var entries: [Entry] = []
        /// Names that are being read.
        var loading: Set<String> = []
        var users: [AdapterID: Int] = [:]
        /// Who waits for an adapter's last user.
        var waiters: [AdapterID: CheckedContinuation<Void, Never>] = [:]
        var nextNumber = 0
    }

    init(_ engine: Engine, read: Reader?) {
        self.engine = engine
        self.read = read
    }

    var served: [ServedAdapter] { state.withLock { $0.entries.map(\.served) } }

    // MARK: Requests

    /// The weights of adapters by name, which stay until ``release(_:)``.
    /// - Throws: ``ServiceRefusal`` for a name that is not there any more.
    func take(_ names: [String: Float]) throws -> AdapterWeights {
        try state.withLock { state in
            var weights: AdapterWeights = [:]
            for (name, weight) in names {
                guard let entry = state.entries.first(where: { $0.served.name == name }) else {
                    throw ServiceRefusal.invalid("the adapter '\(name)' was unloaded", field: "model")
                }
                weights[entry.id] = weight
            }
            for id in weights.keys { state.users[id, default: 0] += 1 }
            return weights
        }
    }

    func release(_ weights: AdapterWeights) {
        let free = state.withLock { state in
            weights.keys.compactMap { id -> CheckedContinuation<Void, Never>? in
                state.users[id, default: 1] -= 1
                guard state.users[id] == 0 else { return nil }
                state.users[id] = nil
                return state.waiters.removeValue(forKey: id)
            }
        }
        for waiter in free { waiter.resume() }
    }

    // MARK: Changes

    /// Reads an adapter and offers it.
    /// - Parameter replaces: whether one of the same name gives way, once the requests that use it have ended.
    /// - Throws: ``ServiceRefusal``; what the reader and the engine throw.
    func load(_ name: String, _ path: String, replaces: Bool) async throws {
        guard let read else { throw ServiceRefusal.invalid("this server takes no adapters", field: nil) }
        try state.withLock { state in
            let isThere = state.entries.contains { $0.served.name == name }
            guard !state.loading.contains(name), replaces || !isThere else {
                throw ServiceRefusal.invalid("the adapter '\(name)' has already been loaded", field: "lora_name")
            }
            state.loading.insert(name)
        }
        defer { _ = state.withLock { $0.loading.remove(name) } }
        let adapter = try await Task.detached { try read(URL(filePath: path), name) }.value
        let id = try await engine.attach(adapter)
        let old = state.withLock { state -> AdapterID? in
            guard let index = state.entries.firstIndex(where: { $0.served.name == name }) else {
                state.entries.append(
                    Entry(served: ServedAdapter(name: name, path: path, number: state.nextNumber), id: id))
                state.nextNumber += 1
                return nil
            }
            defer {
                state.entries[index].id = id
                state.entries[index].served.path = path
            }
            return state.entries[index].id
        }
        if let old { try await remove(old) }
    }

    /// Offers an adapter no more, and returns when the requests that use it have ended and its memory is free. Answers whether it
    /// was there.
    func unload(_ name: String) async throws -> Bool {
        let id = state.withLock { state -> AdapterID? in
            guard let index = state.entries.firstIndex(where: { $0.served.name == name }) else { return nil }
            return state.entries.remove(at: index).id
        }
        guard let id else { return false }
        try await remove(id)
        return true
    }

    private func remove(_ id: AdapterID) async throws {
        await withCheckedContinuation { waiter in
            let isFree = state.withLock { state in
                guard state.users[id] != nil else { return true }
                state.waiters[id] = waiter
                return false
            }
            if isFree { waiter.resume() }
        }
        try await engine.detach(id)
    }
}
