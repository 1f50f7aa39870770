import NibbleCheckpoint
import NibbleCore
import NibbleModels
import NibbleQuantization

/// Which tensors of a checkpoint make up each parameter of a tree.
struct KeyMatching {
    /// By parameter path.
    private(set) var sources: [String: Source] = [:]
    /// By the path a single expert's weight would have: `M.experts.3.gate_proj.weight`.
    private(set) var expertSources: [String: Source] = [:]
    private(set) var unexpected: [String] = []
    private(set) var missing: [String] = []
    private(set) var mismatched: [LoadError.Mismatch] = []
    /// Tied pairs that the checkpoint does not contradict.
    private(set) var tied: [(target: String, source: String)] = []
    private(set) var warnings: [String] = []
    /// Tensors of the model that the checkpoint holds in a form that cannot be read, by parameter path.
    private var unreadable: [String: String] = [:]

    /// A tensor, and those that describe it if it is quantized.
    struct Source {
        var key: String
        /// By ending: `absmax`, `quant_map`, …, `SCB`, `weight_format`.
        var companions: [String: String] = [:]

        var isQuantized: Bool { !companions.isEmpty }
    }

    init(_ architecture: ModelArchitecture, _ checkpoint: any Checkpoint) throws {
        let tree = architecture.tree
        let parameters = tree.parameters
        let known = Set(parameters.map(\.path) + tree.persistentBuffers.map(\.path))
        let expertModules = Set(tree.modules.filter { $0.node.role == .experts }.map(\.path))
        var companions: [String: [String: String]] = [:]

        for key in checkpoint.names {
            if let path = architecture.keys.parameter(for: key, isKnown: known.contains) {
                sources[path] = Source(key: key)
            } else if let path = KeyMatching.expertPath(
                architecture.keys.rename(key), expertModules, architecture.keys.basePrefix)
            {
                expertSources[path] = Source(key: key)
            } else if let (owner, ending) = KeyMatching.companion(key),
                let path = architecture.keys.parameter(for: owner, isKnown: known.contains)
            {
                companions[path, default: [:]][ending] = key
            } else if !architecture.keys.isIgnored(key) {
                unexpected.append(key)
            }
        }
        for key in checkpoint.unreadableNames {
            if let path = architecture.keys.parameter(for: key, isKnown: known.contains) {
                unreadable[path] = key
            } else if KeyMatching.expertPath(architecture.keys.rename(key), expertModules, architecture.keys.basePrefix) != nil {
                unreadable[key] = key
            } else if !architecture.keys.isIgnored(key) {
                unexpected.append(key)
            }
        }
        for (path, found) in companions {
            if sources[path] == nil { unexpected += found.values.sorted() } else { sources[path]?.companions = found }
        }
        try resolveTies(tree, checkpoint)
        check(parameters, checkpoint, expertModules)
        try requireReadable(tree, checkpoint)
        for (path, buffer) in tree.persistentBuffers {
            guard let key = sources[path]?.key, let found = checkpoint.descriptor(key)?.shape, found.count != buffer.count
            else { continue }
            mismatched.append(.init(name: key, expected: [buffer.count], found: found))
        }
    }

    /// The weight that a companion tensor belongs to, and its ending.
    private static func companion(_ key: String) -> (owner: String, ending: String)? {
        if let range = key.range(of: ".weight.") {
            return (String(key[..<range.lowerBound]) + ".weight", String(key[range.upperBound...]))
        }
        for ending in [QuantizedNames.rowScales, QuantizedNames.weightFormat] where key.hasSuffix("." + ending) {
            return (String(key.dropLast(ending.count)) + "weight", ending)
        }
        return nil
    }

    /// `key` if it is the weight of one expert of a known set, with the base prefix where the tree has it.
    private static func expertPath(_ key: String, _ modules: Set<String>, _ prefix: String) -> String? {
        for candidate in [key, prefix + "." + key] {
            guard let range = candidate.range(of: ".experts.") else { continue }
            if modules.contains(String(candidate[..<range.lowerBound]) + ".experts") { return candidate }
        }
        return nil
    }

    /// A tied parameter is loaded once. A target that the file holds with other values is not tied.
    private mutating func resolveTies(_ tree: ModuleTree, _ checkpoint: any Checkpoint) throws {
        for pair in tree.tied {
            switch (sources[pair.target], sources[pair.source]) {
            case (let target?, nil):
                sources[pair.source] = target
                tied.append(pair)
            case (let target?, let source?) where try !KeyMatching.areEqual(target.key, source.key, checkpoint):
                warnings.append("\(pair.target) and \(pair.source) are declared tied but differ in the checkpoint: kept apart")
            default:
                tied.append(pair)
            }
        }
    }

    private static func areEqual(_ a: String, _ b: String, _ checkpoint: any Checkpoint) throws -> Bool {
        guard let first = checkpoint.descriptor(a), let second = checkpoint.descriptor(b) else { return false }
        if first == second { return true }
        guard first.dtype == second.dtype, first.shape == second.shape else { return false }
        return try checkpoint.tensor(a).hostBytes.elementsEqual(checkpoint.tensor(b).hostBytes)
    }

    /// Integers in a pre-quantized checkpoint are codes: without their scales they must not be taken for numbers.
    /// - Throws: ``LoadError/missingCompanion(tensor:companion:file:)``
    func requireScales(of modules: [String], _ checkpoint: any Checkpoint) throws {
        for module in modules {
            guard let source = sources[module + ".weight"], !source.isQuantized, let found = checkpoint.descriptor(source.key),
                !found.dtype.isFloatingPoint
            else { continue }
            throw LoadError.missingCompanion(tensor: source.key, companion: "its scale", file: found.file.path)
        }
    }

    /// Throws why a tensor cannot be read that the model needs.
    private func requireReadable(_ tree: ModuleTree, _ checkpoint: any Checkpoint) throws {
        let tiedTargets = Set(tied.map(\.target))
        for (path, key) in unreadable.sorted(by: { $0.key < $1.key }) where sources[path] == nil && !tiedTargets.contains(path) {
            _ = try checkpoint.tensor(key)
        }
    }

    private mutating func check(_ parameters: [LocatedParameter], _ checkpoint: any Checkpoint, _ expertModules: Set<String>) {
        let tiedTargets = Set(tied.map(\.target))
        for parameter in parameters where !tiedTargets.contains(parameter.path) {
            guard let source = sources[parameter.path] else {
                let isHeldInParts = expertModules.contains(parameter.module.path) && !expertSources.isEmpty
                if !parameter.isComputed, !isHeldInParts { missing.append(parameter.path) }
                continue
            }
            guard !source.isQuantized, let found = checkpoint.descriptor(source.key)?.shape, found != parameter.shape else {
                continue
            }
            mismatched.append(.init(name: source.key, expected: parameter.shape, found: found))
        }
    }
}
