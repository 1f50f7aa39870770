package import NibbleCheckpoint
package import NibbleCore
package import NibbleDeviceMap
package import NibbleModels

/// Makes a resident model of a folder: matches names, plans quantization, streams weights to their devices.
package struct ModelLoader: Sendable {
    package let source: ModelSource
    package let options: LoaderOptions
    /// By device, the CPU always among them.
    let backends: [Device: any Backend]
    package let cpu: any Backend

    /// - Parameter backends: one for each device in use; the first for a device counts. One must be the CPU's.
    package init(_ source: ModelSource, options: LoaderOptions, backends: [any Backend]) {
        guard let cpu = backends.first(where: { $0.device == .cpu }) else {
            preconditionFailure("loading needs the CPU backend")
        }
        self.source = source
        self.options = options
        self.cpu = cpu
        self.backends = Dictionary(backends.map { ($0.device, $0) }, uniquingKeysWith: { first, _ in first })
    }

    package struct LoadedModel: Sendable {
        package let model: LanguageModel
        package let weights: ModelWeights
        /// The tree with ties as the checkpoint has them.
        package let tree: ModuleTree
        package let plan: QuantizationPlan
        package var report: LoadReport
    }

    /// - Throws: ``LoadError``, `DeviceMapError`, `CheckpointError`, `BackendError` …; then nothing stays allocated.
    package func load(_ checkpoint: any Checkpoint, placement request: PlacementRequest) throws -> LoadedModel {
        let start = ContinuousClock.now
        var matched = try match(checkpoint)
        let plan = try place(request, matched)
        if let refusal = plan.placement.refusal { throw refusal }
        matched.plan = plan.quantization
        let resolved = try resolve(matched.tree, plan.placement.deviceMap, streamDevice: plan.placement.streamDevice)
        let running = backends.values.filter { resolved.devices.contains($0.device) }
        try reserveMemory(plan, resolved, head: matched.tree.outputEmbedding)
        let kernels = KernelPreparation(running, plan.memory.kernelRequest)
        let weights = try matched.loader(resolved, backends).load(matched.tree)
        for backend in backends.values { try backend.synchronize() }
        try kernels.wait()
        let model = try LanguageModel(
            matched.architecture, weights,
            options: SessionOptions(
                loadDType: matched.dtype, cacheFormat: plan.memory.cacheFormat, chunkTokens: plan.memory.chunkTokens,
                // What was planned for is there from the beginning.
                initialCapacity: max(plan.memory.context, SessionOptions.defaultInitialCapacity)))

        var report = report(matched, weights, resolved)
        report.placement = plan.placement
        report.warnings += plan.placement.warnings
        report.seconds = (ContinuousClock.now - start) / .seconds(1)
        return LoadedModel(model: model, weights: weights, tree: matched.tree, plan: matched.plan, report: report)
    }

    /// Takes a GPU's memory in one piece, its workspace first: once weights lie behind the workspace, it cannot grow in place.
    private func reserveMemory(_ plan: LoadPlan, _ resolved: ResolvedPlacement, head: String) throws {
        for use in plan.placement.devices where use.device.isGPU && resolved.devices.contains(use.device) {
            guard let backend = backends[use.device], use.budget.map({ use.total <= $0 }) ?? true else { continue }
            try backend.expect(use.total - use.context)
            try backend.reserve(plan.memory.workspaceRequest(holdsHead: resolved.device(of: head) == use.device))
        }
    }

    private func report(
        _ matched: MatchedCheckpoint, _ weights: ModelWeights, _ placement: ResolvedPlacement
    ) -> LoadReport {
        var report = LoadReport()
        report.dtype = matched.dtype
        report.quantization = matched.config
        (report.quantizedModules, report.skippedModules) = matched.moduleNames
        report.unexpected = matched.matching.unexpected
        report.warnings = matched.warnings + placement.warnings
        report.footprint = matched.tree.footprint(matched.plan, loadDType: matched.dtype)
        report.residentBytes = weights.storedBytes(placement)
        let checkpoint = matched.checkpoint
        report.checkpointBytes = checkpoint.names.reduce(0) { $0 + (checkpoint.descriptor($1)?.byteCount ?? 0) }
        return report
    }

    /// Assigns a device to everything in `map`.
    /// - Throws: ``LoadError/noDevice(_:present:)`` for a device that this machine does not have; `DeviceMapError`.
    func resolve(_ tree: ModuleTree, _ map: DeviceMap, streamDevice: Device = .cpu) throws -> ResolvedPlacement {
        let placement = try ResolvedPlacement(
            map, tree, stacks: source.architecture.stacks, streamDevice: streamDevice)
        for device in placement.devices.sorted() where device != .disk && backends[device] == nil {
            throw LoadError.noDevice(device, present: backends.keys.sorted())
        }
        return placement
    }
}

extension ModelArchitecture {
    /// The stacks, in the order in which tokens pass through them.
    var stacks: [StackDescription] { [encoder, decoder].compactMap { $0 } }
}

extension ModelWeights {
    /// Bytes of weights, scales and tables by the device they are stored on. Shared memory counts once.
    func storedBytes(_ placement: ResolvedPlacement) -> [Device: Int] {
        var bytes: [Device: Int] = [:]
        var tables = Set<ObjectIdentifier>()
        for linear in linears.values {
            let stored = placement.storage(of: linear.name + ".weight")
            bytes[stored, default: 0] += linear.weight.byteCount
            if case .dense(let tensor) = linear.weight { tables.insert(ObjectIdentifier(tensor.storage)) }
        }
        for (module, experts) in experts {
            let stored = placement.storage(of: module + ".down_proj")
            for expert in experts {
                for layer in expert.gateUp.layers + [expert.down] {
                    bytes[stored, default: 0] += layer.weight.byteCount + (layer.bias?.byteCount ?? 0)
                }
            }
        }
        for (path, tensor) in tensors where tables.insert(ObjectIdentifier(tensor.storage)).inserted {
            bytes[placement.storage(of: path), default: 0] += tensor.byteCount
        }
        return bytes
    }
}
