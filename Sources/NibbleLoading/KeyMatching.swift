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
    /// By the path that a single expert's bias would have: `M.experts.3.down_proj.bias`.
    private(set) var expertBiases: [ByteText: WeightSource] = [:]
    /// The shape of each weight [N, K] of ``expertSources``.
    private(set) var expertShapes: [ByteText: Shape] = [:]
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
        let experts = ExpertNames(tree, prefix: architecture.keys.basePrefix)
        func parameter(_ key: String) -> String? { architecture.keys.parameter(for: key) { known.contains($0) } }
        func expert(_ key: String) -> String? { experts.path(architecture.keys.rename(key)) }
        var companions: [ByteText: [ByteText: String]] = [:]

        for key in checkpoint.names {
            if let path = parameter(key) {
                sources[path] = WeightSource(key: key)
            } else if let path = expert(key) {
                let source = WeightSource(key: key)
                if path.hasByteSuffix(".bias") { expertBiases[path] = source } else { expertSources[path] = source }
            } else if let (path, ending) = KeyMatching.companion(key, { parameter($0) ?? expert($0) }) {
                companions[ByteText(path), default: [:]][ending] = key
            } else if !architecture.keys.isIgnored(key) {
                unexpected.append(key)
            }
        }
        for key in checkpoint.unreadableNames {
            if let path = parameter(key) ?? expert(key) {
                unreadable[path] = key
            } else if !architecture.keys.isIgnored(key) {
                unexpected.append(key)
            }
        }
        attach(companions)
        try resolveTies(tree, checkpoint)
        check(parameters, checkpoint, experts)
        try requireReadable(tree, checkpoint)
        for (path, buffer) in tree.persistentBuffers {
            if buffer.isRequired, sources[path] == nil { missing.append(path) }
            guard let key = sources[path]?.key, let found = checkpoint.descriptor(key)?.shape, found.count != buffer.count
            else { continue }
            mismatched.append(.init(name: key, expected: [buffer.count], found: found))
        }
    }

    private mutating func attach(_ companions: [ByteText: [ByteText: String]]) {
        for (path, found) in companions.sorted(by: { $0.key < $1.key }) {
            if sources[path] != nil {
                sources[path]?.companions = found
            } else if expertSources[path] != nil {
                expertSources[path]?.companions = found
            } else {
                unexpected += found.values.sorted()
            }
        }
    }

    /// The path of the weight that a describing tensor belongs to, and the tensor's ending.
    private static func companion(_ key: String, _ path: (String) -> String?) -> (path: String, ending: String)? {
        if let range = key.firstByteRange(of: ".weight.") {
            return path(String(key[..<range.lowerBound]) + ".weight").map { ($0, String(key[range.upperBound...])) }
        }
        for ending in QuantizedNames.parameterEndings where key.hasByteSuffix("." + ending) {
            return path(String(key.dropLast(ending.count + 1))).map { ($0, ending) }
        }
        for ending in [QuantizedNames.rowScales, QuantizedNames.weightFormat] where key.hasByteSuffix("." + ending) {
            let owner = String(key.dropLast(ending.count + 1))
            return (path(owner + ".weight") ?? path(owner)).map { ($0, ending) }
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
        let experts = expertSources.sorted { $0.key < $1.key }.map(\.value)
        for source in modules.compactMap({ sources[$0 + ".weight"] }) + experts {
            guard !source.isQuantized, let found = checkpoint.descriptor(source.key), !found.dtype.isFloatingPoint
            else { continue }
            throw LoadError.missingCompanion(tensor: source.key, companion: "its scale", file: found.file.path)
        }
    }

    /// Throws why a tensor cannot be read that the model needs.
    private func requireReadable(_ tree: ModuleTree, _ checkpoint: any Checkpoint) throws {
        let tiedTargets = Set(texts: tied.map(\.target))
        for (path, key) in unreadable.sorted(by: { $0.key < $1.key }) {
            guard sources[path] == nil, expertSources[path] == nil, expertBiases[path] == nil, !tiedTargets.contains(path) else {
                continue
            }
            _ = try checkpoint.tensor(key)
        }
    }

    private mutating func check(_ parameters: [LocatedParameter], _ checkpoint: any Checkpoint, _ experts: ExpertNames) {
        let tiedTargets = Set(texts: tied.map(\.target))
        for parameter in parameters where !tiedTargets.contains(parameter.path) {
            if let source = sources[parameter.path] {
                check(source, parameter.shape, checkpoint)
                continue
            }
            let separate = experts.weights(of: parameter.path, in: parameter.module.path)
            // A set of which the checkpoint holds nothing is named as a whole.
            func source(_ path: String) -> WeightSource? { expertSources[path] ?? expertBiases[path] }
            guard separate.contains(where: { source($0.path) != nil }) else {
                if !parameter.isComputed { missing.append(parameter.path) }
                continue
            }
            for (path, shape) in separate {
                expertShapes[path] = shape
                if let source = source(path) { check(source, shape, checkpoint) } else { missing.append(path) }
            }
        }
    }

    private mutating func check(_ source: WeightSource, _ shape: Shape, _ checkpoint: any Checkpoint) {
        guard !source.isQuantized, let found = checkpoint.descriptor(source.key), found.shape != shape else { return }
        mismatched.append(.init(name: source.key, expected: shape, found: found.shape))
    }
}
