import NibbleCheckpoint
import NibbleCore
import NibbleModels

/// Finds the modules of a model that the tensors of an adapter belong to.
struct AdapterMatching {
    private let file: AdapterFile
    private let keys: CheckpointKeys
    private let tree: ModuleTree
    private let parameters: [ByteText: LocatedParameter]
    private let experts: ExpertNames
    private var adapter: MatchedAdapter

    init(_ file: AdapterFile, _ architecture: ModelArchitecture, _ tree: ModuleTree) {
        self.file = file
        keys = architecture.keys
        self.tree = tree
        parameters = Dictionary(
            tree.parameters.map { (ByteText($0.path), $0) }, uniquingKeysWith: { first, _ in first })
        experts = ExpertNames(tree, prefix: architecture.keys.basePrefix)
        adapter = MatchedAdapter(file: file)
    }

    private typealias Parts = [AdapterTensor.Part: String]

    func matched() throws -> MatchedAdapter {
        var matching = self
        let groups = Dictionary(grouping: file.tensors) { ByteText($0.module) }.sorted { $0.key < $1.key }
        for (module, tensors) in groups {
            var parts = Parts()
            for tensor in tensors {
                switch tensor.part {
                case .parameter: try matching.replace(tensor)
                case .original: break
                default: parts[tensor.part] = tensor.key
                }
            }
            if !parts.isEmpty { try matching.add(parts, of: module.text) }
        }
        try matching.checkVocabulary()
        try matching.requireTokens()
        try matching.requireSavedModules()
        try matching.requireTargets()
        return matching.adapter
    }

    // MARK: Names

    private func parameter(_ name: String) -> LocatedParameter? {
        keys.parameter(for: name) { parameters[$0] != nil }.flatMap { parameters[$0] }
    }

    /// What is not of the model is an error. Parts of a wrapper that are not loaded are none.
    private mutating func unexpected(_ key: String, _ module: String) throws {
        if keys.isIgnored(keys.rename(module)) || keys.isIgnored(module) {
            adapter.warnings.append("\(file.path): \(key.printable()) belongs to a part of the model that is not loaded")
            return
        }
        throw file.wrong(
            "tensor \(key.printable())", expected: "the name of a module of the model",
            found: "\(module.printable()), which it lacks")
    }

    // MARK: Parameters of the base

    private mutating func replace(_ tensor: AdapterTensor) throws {
        guard let parameter = parameter(tensor.parameterName) else { return try unexpected(tensor.key, tensor.module) }
        guard adapter.replaced[parameter.path] == nil else {
            throw file.wrong("tensor \(tensor.key.printable())", expected: "one tensor for \(parameter.path)", found: "two")
        }
        var shape = parameter.shape
        if isVocabulary(parameter), let found = file.checkpoint.descriptor(tensor.key)?.shape, found.rank == 2, found[0] > 0 {
            // Checked when both tables are known.
            shape = shape.replacingFirst(found[0])
        }
        adapter.replaced[parameter.path] = try file.tensor(tensor.key, shape)
    }

    /// Whether a parameter has a row for each token.
    private func isVocabulary(_ parameter: LocatedParameter) -> Bool {
        parameter.path.hasByteSuffix(".weight")
            && (parameter.module.path == tree.outputEmbedding || parameter.module.node.role == .tokenEmbedding)
    }

    /// Tables of another size come for embedding and head together. One of several that are tied stands for all.
    private mutating func checkVocabulary() throws {
        let tables = tree.parameters.filter(isVocabulary)
        let odd = tables.first { table in adapter.replaced[table.path].map { $0.shape != table.shape } ?? false }
        guard let odd, let tensor = adapter.replaced[odd.path] else { return }
        let rows = tensor.shape[0]
        for table in tables where adapter.replaced[table.path] == nil {
            let tied = tree.tied.filter { $0.target == table.path || $0.source == table.path }.flatMap { [$0.target, $0.source] }
            let siblings = tied + tree.tied.filter { tied.contains($0.source) }.map(\.target)
            adapter.replaced[table.path] = siblings.compactMap { adapter.replaced[$0] }.first
        }
        for table in tables where adapter.replaced[table.path]?.shape[0] ?? table.shape[0] != rows {
            throw file.wrong(
                "the table of \(odd.module.path)",
                expected: "\(table.shape[0]) rows, or a table of \(table.module.path) with as many", found: "\(rows) rows")
        }
        adapter.vocabularySize = rows
    }

    // MARK: Low-rank sums

    private mutating func add(_ parts: Parts, of name: String) throws {
        if parts[.tokenRows] != nil { try addTokens(parts, of: name) }
        guard parts.keys.contains(where: { $0 != .tokenRows }) else { return }
        if let parameter = parameter(name + ".weight") {
            if parameter.module.isExperts {
                return try addExperts(parts, parameter, of: name, pattern: name)
            }
            if case .embedding = parameter.module.node.kind { return try addEmbedding(parts, parameter, of: name) }
            if parameter.module.isMatrix { return try addLinear(parts, parameter, of: name) }
        }
        if let path = experts.path(keys.rename(name + ".weight")) { return try addExpert(parts, path, of: name) }
        if let set = try expertSet(name) { return try addExperts(parts, set.parameter, of: name, pattern: set.pattern) }
        try unexpected(parts.sorted { $0.value < $1.value }[0].value, name)
    }

    private func require(_ part: AdapterTensor.Part, _ parts: Parts, _ module: String, _ ending: String) throws -> String {
        if let key = parts[part] { return key }
        throw file.wrong(
            "module \(module.printable())", expected: "a tensor \(ending)", found: "no such tensor")
    }

    /// Refuses what a module of this kind has no use for.
    private func allow(_ allowed: Set<AdapterTensor.Part>, _ parts: Parts, _ reason: String) throws {
        guard let odd = parts.filter({ !allowed.contains($0.key) && $0.key != .tokenRows }).map(\.value).min() else { return }
        throw file.wrong("tensor \(odd.printable())", expected: reason, found: "this tensor")
    }

    /// The tensors beside A and B that the config promises.
    private var companions: Set<AdapterTensor.Part> {
        Set((file.config.hasBias ? [.biasB] : []) + (file.config.usesDoRA ? [.magnitude] : []))
    }

    private mutating func addLinear(_ parts: Parts, _ parameter: LocatedParameter, of name: String) throws {
        var (rows, columns) = (parameter.shape[0], parameter.shape[1])
        if case .transposedLinear = parameter.module.node.kind { swap(&rows, &columns) }
        try allow(companions.union([.a, .b]), parts, "lora_bias or use_dora in the config for it, and a linear module")
        let rank = try file.config.rank(of: name)
        adapter.lowRanks[parameter.module.path] = MatchedAdapter.LowRankUpdate(
            a: try file.tensor(require(.a, parts, name, "lora_A.weight"), [rank, columns]),
            b: try file.tensor(require(.b, parts, name, "lora_B.weight"), [rows, rank]),
            biasB: try file.config.hasBias ? file.tensor(require(.biasB, parts, name, "lora_B.bias"), [rows]) : nil,
            magnitude: try magnitude(parts, name, rows), scale: try file.config.scale(of: name))
    }

    private func magnitude(_ parts: Parts, _ name: String, _ rows: Int) throws -> Tensor? {
        guard file.config.usesDoRA else { return nil }
        return try file.tensor(require(.magnitude, parts, name, "lora_magnitude_vector"), [rows])
    }

    private mutating func addEmbedding(_ parts: Parts, _ parameter: LocatedParameter, of name: String) throws {
        try allow(
            file.config.usesDoRA ? [.embeddingA, .embeddingB, .magnitude] : [.embeddingA, .embeddingB], parts,
            "lora_embedding_A and lora_embedding_B of an embedding")
        let rank = try file.config.rank(of: name)
        let replaced = adapter.replaced[parameter.path]?.shape[0]
        adapter.lowRanks[parameter.module.path] = MatchedAdapter.LowRankUpdate(
            a: try file.tensor(
                require(.embeddingA, parts, name, "lora_embedding_A"), [rank, replaced ?? parameter.shape[0]]),
            b: try file.tensor(require(.embeddingB, parts, name, "lora_embedding_B"), [parameter.shape[1], rank]), biasB: nil,
            magnitude: try magnitude(parts, name, parameter.shape[1]), scale: try file.config.scale(of: name), isEmbedding: true)
    }

    // MARK: Experts

    /// The parameter of a set of experts that `name` stands for: wrappers of several parameters lie within each other, that of the
    /// first one innermost.
    private func expertSet(_ name: String) throws -> (parameter: LocatedParameter, pattern: String)? {
        var parts = name.splitBytes(at: ".").map(String.init)
        var depth = 0
        while parts.last == "base_layer" {
            parts.removeLast()
            depth += 1
        }
        let module = parts.joined(separator: ".")
        guard let down = parameter(module + ".down_proj"), down.module.isExperts else { return nil }
        let targeted = down.module.node.parameters.map(\.name).filter { parameter in
            let full = module + "." + parameter
            return file.config.targetParameters.contains { full.hasSameBytes(as: $0) || full.hasByteSuffix("." + $0) }
        }
        guard depth < targeted.count else {
            throw file.wrong(
                "module \(name.printable())", expected: "target_parameters that name a parameter of it",
                found: targeted.isEmpty ? "none" : targeted.joined(separator: ", "))
        }
        let parameter = targeted[targeted.count - 1 - depth]
        return parameters[down.module.path(of: parameter)].map { ($0, module + "." + parameter) }
    }

    /// A [r·X, K] is X matrices [r, K]; B [N, r·X] has the experts innermost.
    private mutating func addExperts(_ parts: Parts, _ parameter: LocatedParameter, of name: String, pattern: String) throws {
        guard
            let projection = parameter.module.node.parameters.first(where: {
                parameter.module.path(of: $0.name) == parameter.path
            })?
            .name, parameter.shape.rank == 3
        else { return try unexpected(parts.values.min() ?? name, name) }
        guard !file.config.usesDoRA, !file.config.hasBias else {
            throw file.wrong(
                "module \(name.printable())", expected: "plain low-rank sums of experts", found: "use_dora or lora_bias")
        }
        try allow([.a, .b], parts, "lora_A.weight and lora_B.weight of a set of experts")
        let rank = try file.config.rank(of: pattern)
        let (count, rows, columns) = (parameter.shape[0], parameter.shape[1], parameter.shape[2])
        let a = try file.tensor(require(.a, parts, name, "lora_A.weight"), [rank * count, columns]).floats
        let b = try file.tensor(require(.b, parts, name, "lora_B.weight"), [rows, rank * count]).floats
        let scale = try file.config.scale(of: pattern)
        for expert in 0..<count {
            var own = [Float](repeating: 0, count: rows * rank)
            for row in 0..<rows {
                for index in 0..<rank { own[row * rank + index] = b[(row * rank + index) * count + expert] }
            }
            let update = MatchedAdapter.ExpertUpdate(
                expert: expert, projection: projection,
                a: .host(Array(a[expert * rank * columns..<(expert + 1) * rank * columns]), .float32, [rank, columns]),
                b: .host(own, .float32, [rows, rank]), scale: scale)
            adapter.experts[parameter.module.path, default: []].append(update)
        }
    }

    /// A matrix of one expert, which transformers 4 has as a module of its own.
    private mutating func addExpert(_ parts: Parts, _ path: String, of name: String) throws {
        guard let set = ExpertNames.set(of: path), let module = tree.module(at: set),
            module.node.expertsLayout == .rows, let down = module.node.parameters.first(where: { $0.name == "down_proj" })
        else { return try unexpected(parts.values.min() ?? name, name) }
        guard !file.config.usesDoRA, !file.config.hasBias else {
            throw file.wrong(
                "module \(name.printable())", expected: "plain low-rank sums of experts", found: "use_dora or lora_bias")
        }
        try allow([.a, .b], parts, "lora_A.weight and lora_B.weight of an expert")
        let words = path.splitBytes(at: ".").suffix(3).map(String.init)
        let isDown = words[1] == "down_proj"
        let (rows, columns) = isDown ? (down.shape[1], down.shape[2]) : (down.shape[2], down.shape[1])
        let rank = try file.config.rank(of: name)
        adapter.experts[set, default: []].append(
            MatchedAdapter.ExpertUpdate(
                expert: Int(words[0]) ?? 0, projection: words[1],
                a: try file.tensor(require(.a, parts, name, "lora_A.weight"), [rank, columns]).asFloats,
                b: try file.tensor(require(.b, parts, name, "lora_B.weight"), [rows, rank]).asFloats,
                scale: try file.config.scale(of: name)))
    }

    // MARK: Tokens

    private mutating func addTokens(_ parts: Parts, of name: String) throws {
        let key = try require(.tokenRows, parts, name, "trainable_tokens_delta")
        guard let table = parameter(name + ".weight"), case .embedding = table.module.node.kind else {
            // A tied head has a copy of its own in some versions.
            if let head = parameter(name + ".weight"), head.module.path == tree.outputEmbedding { return }
            return try unexpected(key, name)
        }
        let entry = file.config.tokenIndices.first { entry in
            entry.module.map { name.hasSameBytes(as: $0) || name.hasByteSuffix("." + $0) } ?? true
        }
        guard let indices = entry?.indices else {
            throw file.wrong(
                "tensor \(key.printable())", expected: "trainable_token_indices of \(name.printable()) in the config",
                found: "none")
        }
        let rows = adapter.replaced[table.path]?.shape[0] ?? table.shape[0]
        if let index = indices.first(where: { $0 >= rows }) {
            throw LoadError.wrongAdapter(
                file: file.config.file, place: "trainable_token_indices", expected: "ids below \(rows)", found: "\(index)")
        }
        adapter.tokenRows[table.path] = .init(indices: indices, rows: try file.tensor(key, [indices.count, table.shape[1]]))
    }

    private func requireTokens() throws {
        guard let entry = file.config.tokenIndices.first, adapter.tokenRows.isEmpty else { return }
        throw file.wrong(
            "module \((entry.module ?? "the input embedding").printable())", expected: "a tensor trainable_tokens_delta",
            found: "no such tensor")
    }

    // MARK: What is missing

    private func requireSavedModules() throws {
        func isNamed(_ module: String, _ name: String) -> Bool {
            module.hasSameBytes(as: name) || module.hasByteSuffix("." + name)
        }
        let saved = file.tensors.filter { if case .parameter = $0.part { true } else { false } }
        for name in file.config.savedModules {
            let known = tree.modules.filter {
                isNamed($0.path, name) && !$0.descendants.allSatisfy { $0.node.parameters.isEmpty }
            }
            guard let module = known.first else { continue }
            guard saved.contains(where: { isNamed($0.module, name) || $0.module.containsBytes(name + ".") }) else {
                throw file.wrong(
                    "module \(module.path)", expected: "its weights, as modules_to_save names \(name.printable())",
                    found: "no such tensor")
            }
        }
    }

    private func requireTargets() throws {
        for module in tree.modules where module.isLinear && !module.isExperts {
            let path = module.path
            guard adapter.lowRanks[path] == nil, adapter.replaced[path + ".weight"] == nil else { continue }
            let isHead = path == tree.outputEmbedding
            let name = String(keys.fileName(path + ".weight").dropLast(".weight".count))
            guard try file.config.targets.contains(path, isHead: isHead), try file.config.targets.contains(name, isHead: isHead)
            else { continue }
            throw file.wrong(
                "module \(path)", expected: "lora_A.weight and lora_B.weight, as target_modules names it",
                found: "no such tensors")
        }
    }
}
