import NibbleCheckpoint
import NibbleCore
import NibbleModels

/// Sets of experts: fused 3-D tensors, or one tensor for each expert and projection.
extension WeightLoader {
    /// - Parameter isLoaded: whether the set of this path is loaded.
    func loadExperts(_ tree: ModuleTree, where isLoaded: (String) -> Bool) throws {
        for module in tree.modules where module.isExperts && isLoaded(module.path) {
            setExperts(try experts(module, on: backend(module.path)), of: module.path)
        }
    }

    private func experts(_ module: LocatedModule, on backend: any Backend) throws -> [Expert] {
        let parameters = module.node.parameters
        guard let down = parameters.first(where: { $0.name == "down_proj" }),
            let first = parameters.first(where: { $0.name == "gate_up_proj" || $0.name == "up_proj" })
        else { throw ModelError.missingWeight("gate_up_proj or up_proj, down_proj", module: module.path) }
        let isTransposed = module.node.expertsLayout == .alternatingColumns
        let (width, inner) = isTransposed ? (down.shape[2], down.shape[1]) : (down.shape[1], down.shape[2])
        let fusedFirst = try fused(first.name, first.shape, module, on: backend)
        let projections: [(name: String, rows: Int)] =
            isTransposed
            ? [("gate_up_proj", 2 * inner)]
            : (first.name == "up_proj" ? ["up_proj"] : ["gate_proj", "up_proj"]).map { ($0, inner) }
        let fusedDown = try fused("down_proj", down.shape, module, on: backend)
        return try (0..<down.shape[0]).map { index in
            let layers =
                try fusedFirst.map { [try $0(index)] }
                ?? projections.map { try layer(index, $0.name, [$0.rows, width], module, on: backend) }
            let last = try fusedDown?(index) ?? layer(index, "down_proj", [width, inner], module, on: backend)
            return Expert(gateUp: LinearGroup(layers), down: last)
        }
    }

    /// A layer of one expert, which has a tensor of its own.
    private func layer(
        _ index: Int, _ projection: String, _ shape: Shape, _ module: LocatedModule, on backend: any Backend
    ) throws -> Linear {
        let path = "\(module.path).\(index).\(projection)"
        guard let source = matching.expertSources[path + ".weight"] else {
            throw LoadError.missingWeights([path + ".weight"], files: checkpoint.files.map(\.path))
        }
        let bias = try bias(of: projection, index, module, on: backend)
        let alternates = module.node.expertsLayout == .alternatingColumns && projection == "gate_up_proj"
        if source.isQuantized {
            defer { dropPages(source, of: module) }
            let stored = try StoredWeightReader(checkpoint: checkpoint) { $0 }.weight(source, shape: shape)
            guard alternates else { return linear(path, try placed(stored, source, module, on: backend), bias: bias) }
            return linear(path, try separated(stored, path, source, module, on: backend), bias: bias)
        }
        if !alternates, let rows = try checkpoint.weightRows(source.key, matrix: nil),
            let weight = try quantized(rows, source.key, module, backend)
        {
            return linear(path, weight, bias: bias)
        }
        let file = try checkpoint.tensor(source.key)
        let matrix = try castToStored(file, parameter: path, key: source.key)
        return try linear(
            path, alternates ? host.separatingAlternateRows(matrix) : matrix, of: module, key: source.key, file: file,
            on: backend,
            bias: bias)
    }

    /// A quantized weight whose rows of gate and up alternate, the gate's first, where the module's weights lie.
    private func separated(
        _ stored: LinearWeight, _ path: String, _ source: KeyMatching.WeightSource, _ module: LocatedModule,
        on backend: any Backend
    ) throws -> LinearWeight {
        func make() throws -> LinearWeight {
            guard let weight = try stored.separatingAlternateRows(host) else {
                throw LoadError.malformedQuantization(
                    tensor: source.key, file: file(of: source.key), expected: "rows that are whole blocks of the scales",
                    found: "rows of \(stored.inFeatures)")
            }
            return weight
        }
        if isOnDisk(module.path(of: "down_proj")) {
            return try offloaded(path, key: source.key, module: module.path, form: "gate rows first", make)
        }
        return try prepared(make().mapTensors { try host.resident($0, on: backend, unlessBackedBy: nil) }, on: backend)
    }

    /// Makes layers of a fused parameter, by the expert's index. `nil` where each expert has a tensor of its own.
    private func fused(
        _ projection: String, _ shape: Shape, _ module: LocatedModule, on backend: any Backend
    ) throws -> ((Int) throws -> Linear)? {
        let parameter = module.path(of: projection)
        guard let source = matching.sources[parameter] else { return nil }
        func path(_ index: Int) -> String { "\(module.path).\(index).\(projection)" }
        guard source.isQuantized else {
            if let kept = keptMXFP4(source.key) {
                return { [self] index in
                    let weight = try microscaled(kept, source.key, index, projection, module, on: backend)
                    return linear(path(index), weight, bias: try bias(of: projection, index, module, on: backend))
                }
            }
            // What is no view of the file is made expert by expert.
            let isView = checkpoint.descriptor(source.key)?.isContiguous == true
            let whole = isView ? try checkpoint.tensor(source.key) : nil
            return { [self] index in
                let bias = try bias(of: projection, index, module, on: backend)
                let rows = try isView ? nil : expertRows(source.key, index, projection, module.node.expertsLayout)
                if let rows, let weight = try quantized(rows, source.key, module, backend) {
                    return linear(path(index), weight, bias: bias)
                }
                if let matrix = rows?.tensor() {
                    let tensor = try castToStored(matrix, parameter: parameter, key: source.key)
                    return try linear(path(index), tensor, of: module, key: source.key, file: matrix, on: backend, bias: bias)
                }
                let file = try whole ?? checkpoint.rows(source.key, index..<index + 1)
                let matrix = (whole?.rows(index..<index + 1) ?? file).viewed(as: [file.shape[1], file.shape[2]])
                let tensor = try oriented(
                    castToStored(matrix, parameter: parameter, key: source.key), projection, module.node.expertsLayout)
                return try linear(path(index), tensor, of: module, key: source.key, file: file, on: backend, bias: bias)
            }
        }
        guard module.node.expertsLayout == .rows else {
            throw LoadError.malformedQuantization(
                tensor: source.key, file: file(of: source.key), expected: "experts [X, E, 2F] in floating point",
                found: "quantized experts")
        }
        let set = try StoredWeightReader(checkpoint: checkpoint) { $0 }.weight(source, shape: shape)
        return { [self] index in
            guard let stored = set.rows(index * shape[1]..<(index + 1) * shape[1]) else {
                throw LoadError.malformedQuantization(
                    tensor: source.key, file: file(of: source.key), expected: "experts that are whole blocks of the scales",
                    found: "\(shape[1] * shape[2]) weights an expert")
            }
            defer { if index + 1 == shape[0] { dropPages(source, of: module) } }
            return linear(path(index), try placed(stored, source, module, on: backend))
        }
    }

    /// One expert's rows [N, K], the gate's before those of up. `nil` where the checkpoint does not compute them one by one.
    private func expertRows(
        _ key: String, _ index: Int, _ projection: String, _ layout: ModuleNode.ExpertsLayout
    ) throws -> (any WeightRows)? {
        guard layout == .alternatingColumns else { return try checkpoint.weightRows(key, matrix: index) }
        guard let stored = checkpoint as? DequantizedCheckpoint, stored.isMXFP4(key) else { return nil }
        return try stored.mxfp4Rows(key, matrix: index, separatesAlternateRows: projection == "gate_up_proj")
    }

    private func quantized(
        _ rows: any WeightRows, _ key: String, _ module: LocatedModule, _ backend: any Backend
    ) throws -> LinearWeight? {
        try quantized(rows, of: module.path, parameter: module.path(of: "down_proj"), key: key, on: backend)
    }

    /// One expert's matrix as [N, K], the gate's rows before those of up.
    private func oriented(_ matrix: Tensor, _ projection: String, _ layout: ModuleNode.ExpertsLayout) throws -> Tensor {
        guard layout == .alternatingColumns else { return matrix }
        let rows = try host.transposed(matrix)
        return projection == "gate_up_proj" ? try host.separatingAlternateRows(rows) : rows
    }

    /// float32 [N] of one expert, in the order of its matrix's rows; `nil` where the set has no biases.
    private func bias(
        of projection: String, _ index: Int, _ module: LocatedModule, on backend: any Backend
    ) throws -> Tensor? {
        let parameter = module.path(of: projection + "_bias")
        let own = matching.expertBiases["\(module.path).\(index).\(projection).bias"]
        guard let source = own ?? matching.sources[parameter] else { return nil }
        let file = try checkpoint.tensor(source.key)
        let row = own == nil ? file.rows(index..<index + 1) : file
        let stored = try host.cast(castToStored(row, parameter: parameter, key: source.key), to: .float32)
        let column = stored.viewed(as: [stored.count, 1])
        let bias = projection == "gate_up_proj" ? try host.separatingAlternateRows(column) : column
        return try host.resident(bias.viewed(as: [bias.count]), on: backend, unlessBackedBy: file)
    }

    /// Puts a weight that the checkpoint holds quantized where the module's weights lie.
    private func placed(
        _ stored: LinearWeight, _ source: KeyMatching.WeightSource, _ module: LocatedModule, on backend: any Backend
    ) throws -> LinearWeight {
        if isOnDisk(module.path(of: "down_proj")) {
            stream([source.key] + source.companions.values, of: checkpoint, module: module.path)
            return stored
        }
        return try prepared(stored.mapTensors { try host.resident($0, on: backend, unlessBackedBy: $0) }, on: backend)
    }

    private func dropPages(_ source: KeyMatching.WeightSource, of module: LocatedModule) {
        guard !isOnDisk(module.path(of: "down_proj")) else { return }
        for key in [source.key] + source.companions.values { checkpoint.dropPages(key) }
    }

    private func linear(
        _ path: String, _ tensor: Tensor, of module: LocatedModule, key: String, file: Tensor, on backend: any Backend,
        bias: Tensor? = nil
    ) throws -> Linear {
        linear(
            path,
            try linearWeight(
                tensor, of: module.path, parameter: module.path(of: "down_proj"), name: path, key: key, file: file, on: backend),
            bias: bias)
    }

    private func linear(_ name: String, _ weight: LinearWeight, bias: Tensor? = nil) -> Linear {
        Linear(name: name, weight: weight, bias: bias, arithmetic: arithmetic)
    }
}
