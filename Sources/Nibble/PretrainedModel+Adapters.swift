package import Foundation
import NibbleCore
import NibbleLoading
import NibbleModels

/// The adapters of a model, and the model that has those of them that are active.
struct LoadedAdapters: Sendable {
    private let maker: AdaptedModelMaker
    /// In the order in which they were loaded.
    private(set) var loaded: [(name: String, adapter: MatchedAdapter)] = []
    private(set) var active: [String] = []
    private(set) var model: LanguageModel
    /// The sums of active adapters that are attached to ``model``, by the adapters' names.
    private var attached: [ByteText: AdapterID] = [:]
    /// The same of adapters that are not active, and that rows of a request have named.
    private var forRows: [ByteText: AdapterID] = [:]

    init(_ maker: AdaptedModelMaker) {
        self.maker = maker
        model = maker.base
    }

    func read(_ folder: URL, scale: Double) throws -> (adapter: MatchedAdapter, warnings: [String]) {
        let file = try AdapterFile(folder: folder)
        let adapter = try maker.adapter(file).scaled(by: scale)
        return (adapter, adapter.warnings + [file.baseWarning(maker.source.folder)].compactMap(\.self))
    }

    /// Adds an adapter, or replaces the one of this name.
    mutating func add(_ adapter: MatchedAdapter, named name: String) throws {
        var adapters = loaded
        if let place = adapters.firstIndex(where: { $0.name.hasSameBytes(as: name) }) {
            adapters[place].adapter = adapter
        } else {
            adapters.append((name, adapter))
        }
        try use(active.contains { $0.hasSameBytes(as: name) } ? active : active + [name], of: adapters, new: name)
    }

    mutating func activate(_ names: [String]) throws {
        for name in names { try require(name) }
        try use(names, of: loaded)
    }

    mutating func remove(_ name: String) throws {
        try require(name)
        try use(active.filter { !$0.hasSameBytes(as: name) }, of: loaded.filter { !$0.name.hasSameBytes(as: name) })
    }

    private func require(_ name: String) throws {
        guard !loaded.contains(where: { $0.name.hasSameBytes(as: name) }) else { return }
        throw LoadError.unknownAdapter(name, loaded: loaded.map(\.name))
    }

    /// Makes the model that has these adapters. Nothing changes where that fails.
    /// - Parameter new: the name of an adapter that was not there before.
    private mutating func use(
        _ names: [String], of adapters: [(name: String, adapter: MatchedAdapter)], new: String? = nil
    ) throws {
        let used = names.compactMap { name in adapters.first { $0.name.hasSameBytes(as: name) } }
        let (next, weights) = try maker.model(used.map(\.adapter))
        var kept = next === model ? attached.merging(forRows) { active, _ in active } : [:]
        if let new { kept[new] = nil }
        var ids: [ByteText: AdapterID] = [:]
        do {
            for (name, adapter) in used {
                ids[name] = try kept[name] ?? attach(adapter, named: name, to: next, weights)
            }
        } catch {
            for (name, id) in ids where kept[name] != id { try? next.adapters.detach(id) }
            throw error
        }
        let stay = forRows.filter { entry in
            kept[entry.key] != nil && ids[entry.key] == nil && adapters.contains { entry.key == ByteText($0.name) }
        }
        for (name, id) in attached.merging(forRows, uniquingKeysWith: { active, _ in active })
        where next !== model || (ids[name] != id && stay[name] != id) {
            try model.adapters.detach(id)
        }
        next.adapters.active = AdapterWeights(uniqueKeysWithValues: ids.values.map { ($0, 1) })
        (model, attached, forRows, loaded, active) = (next, ids, stay, adapters, names)
    }

    /// What rows take that name their adapters. An adapter that is not active is attached, and stays so until it is unloaded.
    mutating func weights(of rows: [[String]]) throws -> [AdapterWeights] {
        for name in active { try requireSums(of: name) }
        return try rows.map { names in
            var weights: AdapterWeights = [:]
            for name in names {
                if let id = try attachForRows(name) { weights[id] = 1 }
            }
            return weights
        }
    }

    /// `nil` where the adapter changes no linear layer.
    private mutating func attachForRows(_ name: String) throws -> AdapterID? {
        if let id = attached[name] ?? forRows[name] { return id }
        let adapter = try requireSums(of: name)
        let id = try attach(adapter, named: name, to: model, maker.weights)
        forRows[name] = id
        return id
    }

    /// The adapter of a name, which is loaded.
    /// - Throws: ``LoadError/unsupportedAdapter(file:field:found:remedy:)`` where it changes more than linear layers.
    @discardableResult
    private func requireSums(of name: String) throws -> MatchedAdapter {
        guard let adapter = loaded.first(where: { $0.name.hasSameBytes(as: name) })?.adapter else {
            throw LoadError.unknownAdapter(name, loaded: loaded.map(\.name))
        }
        if let change = adapter.baseChanges.first {
            throw LoadError.unsupportedAdapter(
                file: adapter.file, field: "adapter",
                found: "one that changes \(change)", remedy: "activate it for all rows, and name no adapters for single rows")
        }
        return adapter
    }

    /// `nil` where the adapter changes no linear layer.
    private func attach(
        _ adapter: MatchedAdapter, named name: String, to model: LanguageModel, _ weights: ModelWeights
    ) throws -> AdapterID? {
        let sums = try adapter.sums(name: name, weights, cpu: maker.cpu)
        return sums.layers.isEmpty ? nil : try model.adapters.attach(sums)
    }
}

extension PretrainedModel {
    /// The adapters that are loaded, in the order in which they were.
    public var adapters: [String] { loadedAdapters.withLock { $0.loaded.map(\.name) } }

    /// Makes these adapters the active ones: their sums are added up. None: the base model.
    /// - Throws: ``LoadError/unknownAdapter(_:loaded:)``, ``BackendError``.
    public func activate(_ adapters: [String]) throws { try loadedAdapters.withLock { try $0.activate(adapters) } }

    /// Forgets an adapter.
    /// - Throws: ``LoadError/unknownAdapter(_:loaded:)``, ``BackendError``.
    public func unload(adapter name: String) throws { try loadedAdapters.withLock { try $0.remove(name) } }

    /// The low-rank sums of an adapter that rows may use beside others, for `model.adapters`.
    /// - Throws: as ``load(adapter:named:scale:)`` does; ``LoadError/unsupportedAdapter(file:field:found:remedy:)`` for an adapter
    ///   that changes more than linear layers.
    package func rowAdapter(_ folder: URL, named name: String) throws -> (sums: LowRankAdapter, warnings: [String]) {
        let read = try loadedAdapters.withLock { try $0.read(folder, scale: 1) }
        if let change = read.adapter.baseChanges.first {
            throw LoadError.unsupportedAdapter(
                file: folder.appending(path: "adapter_config.json").path, field: "adapter", found: "one that changes \(change)",
                remedy: "such an adapter is for all requests or none: merge it with nibble merge and serve the merged model")
        }
        return (try read.adapter.sums(name: name, weights, cpu: cpu), read.warnings)
    }
}
