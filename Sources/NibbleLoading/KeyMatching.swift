package import NibbleCheckpoint
package import NibbleCore
package import NibbleModels
import NibbleQuantization

/// Which tensors of a checkpoint make up each parameter of a tree.
package struct KeyMatching {
    /// By parameter path.
    package private(set) var sources: [ByteText: WeightSource] = [:]
    /// By the path that a single expert's weight would have: `M.experts.3.gate_proj.weight`.
    package private(set) var expertSources: [ByteText: WeightSource] = [:]
    /// Tensors of the checkpoint that the model does not use.
    package private(set) var unexpected: [String] = []
    /// Parameters that the checkpoint does not hold.
    package private(set) var missing: [String] = []
    package private(set) var mismatched: [LoadError.Mismatch] = []
    /// Tied pairs that the checkpoint does not contradict.
    package private(set) var tied: [(target: String, source: String)] = []
    package private(set) var warnings: [String] = []
    /// Tensors of the model that the checkpoint holds in a form that cannot be read, by parameter path.
    private var unreadable: [ByteText: String] = [:]

    /// A tensor that holds a weight, and the tensors that describe it if it is quantized.
    package struct WeightSource: Sendable {
        /// The tensor's name in the checkpoint.
        package var key: String
        /// Names of describing tensors by their ending: `absmax`, `quant_map`, …, `SCB`, `weight_format`.
        package var companions: [ByteText: String] = [:]

        package init(key: String) { self.key = key }

        package var isQuantized: Bool { !companions.isEmpty }
    }

    /// - Throws: `CheckpointError` where tied tensors cannot be read to compare them.
    package init(_ architecture: ModelArchitecture, _ checkpoint: any Checkpoint) throws {
        let tree = architecture.tree
        let parameters = tree.parameters
        let known = Set(texts: parameters.map(\.path) + tree.persistentBuffers.map(\.path))
        let expertModules = Set(texts: tree.modules.filter { $0.node.role == .experts }.map(\.path))
        var companions: [ByteText: [ByteText: String]] = [:]

        for key in checkpoint.names {
            if let path = architecture.keys.parameter(for: key, isKnown: { known.contains($0) }) {
                sources[path] = WeightSource(key: key)
            } else if let path = KeyMatching.expertPath(
                architecture.keys.rename(key), expertModules, architecture.keys.basePrefix)
            {
                expertSources[path] = WeightSource(key: key)
            } else if let (owner, ending) = KeyMatching.companion(key),
                let path = architecture.keys.parameter(for: owner, isKnown: { known.contains($0) })
            {
                companions[ByteText(path), default: [:]][ending] = key
            } else if !architecture.keys.isIgnored(key) {
                unexpected.append(key)
            }
        }
        for key in checkpoint.unreadableNames {
            if let path = architecture.keys.parameter(for: key, isKnown: { known.contains($0) }) {
                unreadable[path] = key
            } else if KeyMatching.expertPath(architecture.keys.rename(key), expertModules, architecture.keys.basePrefix) != nil {
                unreadable[key] = key
            } else if !architecture.keys.isIgnored(key) {
                unexpected.append(key)
            }
        }
        for (path, found) in companions.sorted(by: { $0.key < $1.key }) {
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

    /// The weight that a describing tensor belongs to, and its ending.
    private static func companion(_ key: String) -> (owner: String, ending: String)? {
        if let range = key.firstByteRange(of: ".weight.") {
            return (String(key[..<range.lowerBound]) + ".weight", String(key[range.upperBound...]))
        }
        for ending in [QuantizedNames.rowScales, QuantizedNames.weightFormat] where key.hasByteSuffix("." + ending) {
            return (String(key.dropLast(ending.count)) + "weight", ending)
        }
        return nil
    }

    /// `key` if it is the weight of one expert of a known set, with the base prefix where the tree has it.
    private static func expertPath(_ key: String, _ modules: Set<ByteText>, _ prefix: String) -> String? {
        for candidate in [key, prefix + "." + key] {
            guard let range = candidate.firstByteRange(of: ".experts.") else { continue }
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
        let tiedTargets = Set(texts: tied.map(\.target))
        for (path, key) in unreadable.sorted(by: { $0.key < $1.key }) where sources[path] == nil && !tiedTargets.contains(path) {
            _ = try checkpoint.tensor(key)
        }
    }

    private mutating func check(
        _ parameters: [LocatedParameter], _ checkpoint: any Checkpoint, _ expertModules: Set<ByteText>
    ) {
        let tiedTargets = Set(texts: tied.map(\.target))
        for parameter in parameters where !tiedTargets.contains(parameter.path) {
            guard let source = sources[parameter.path] else {
                let isHeldByExpert = expertModules.contains(parameter.module.path) && !expertSources.isEmpty
                if !parameter.isComputed, !isHeldByExpert { missing.append(parameter.path) }
                continue
            }
            guard !source.isQuantized, let found = checkpoint.descriptor(source.key)?.shape, found != parameter.shape else {
                continue
            }
            mismatched.append(.init(name: source.key, expected: parameter.shape, found: found))
        }
    }
}
