package import NibbleCore
package import NibbleDeviceMap
package import NibbleModels
package import NibbleQuantization

extension ModelLoader {
    /// Everything that is decided about a load before a weight is read.
    package struct LoadPlan: Sendable {
        package var placement: PlacementPlan
        package var quantization: QuantizationPlan
        package var memory: ModelMemory
        /// The dtype that unquantized weights are stored in.
        package var dtype: DType
        /// The quantization config in effect.
        package var config: BitsAndBytesConfig?
        /// Bytes as `get_memory_footprint` counts them.
        package var footprint: Int
        package var warnings: [String] = []
    }

    /// Plans from `config.json` alone: no weight file need be there.
    /// - Throws: `DeviceMapError`, ``LoadError``, `QuantizationConfigError`.
    package static func plan(
        _ source: ModelSource, options: LoaderOptions, _ request: PlacementRequest
    ) throws -> LoadPlan {
        var warnings = source.warnings
        let config = try quantization(source, options, &warnings)
        let dtype = try checked(options.dtype ?? source.configDType() ?? .float32)
        var plan = try place(
            request, source, options, source.architecture.tree, dtype: dtype, config: config,
            checkpointDType: source.configDType())
        plan.warnings = warnings + plan.placement.warnings
        return plan
    }

    func place(
        _ request: PlacementRequest, _ prepared: MatchedCheckpoint
    ) throws -> LoadPlan {
        try ModelLoader.place(
            request, source, options, prepared.tree, dtype: prepared.dtype, config: prepared.config,
            checkpointDType: prepared.checkpoint.firstFloatingPointDType)
    }

    /// Where not everything fits, long prompts are fed in smaller chunks if that makes it fit: activations take less.
    private static func place(
        _ request: PlacementRequest, _ source: ModelSource, _ options: LoaderOptions, _ tree: ModuleTree, dtype: DType,
        config: BitsAndBytesConfig?, checkpointDType: DType?
    ) throws -> LoadPlan {
        let step = PlacementAttempt(
            request: request, source: source, options: options, tree: tree, dtype: dtype, config: config,
            checkpointDType: checkpointDType)
        var placed = try step.place(chunkTokens: SessionOptions.defaultChunkTokens)
        for chunkTokens in [128, 32] where !placed.placement.fitsInMemory {
            let smaller = try step.place(chunkTokens: chunkTokens)
            if smaller.placement.fitsInMemory || placed.placement.refusal != nil { placed = smaller }
        }
        return placed
    }
}

/// One attempt to place a model.
private struct PlacementAttempt {
    let request: PlacementRequest
    let source: ModelSource
    let options: LoaderOptions
    let tree: ModuleTree
    let dtype: DType
    let config: BitsAndBytesConfig?
    let checkpointDType: DType?

    func place(chunkTokens: Int) throws -> LoadPlan {
        var plan = quantization()
        var memory = memory(plan, chunkTokens)
        let reference = quantization(reference: true)
        var placement = try PlacementPlanner(memory, referencePlan: reference).plan(request)
        let floats = modulesLeftFloat(placement)
        if !floats.isEmpty {
            // Planned with quantized sizes, as the reference does; what that takes in truth is told.
            plan = quantization(skipping: floats)
            memory = self.memory(plan, chunkTokens)
            var fixed = request
            fixed.deviceMap = .explicit(placement.deviceMap)
            let planner = placement.planner
            placement = try PlacementPlanner(memory, referencePlan: reference).plan(fixed)
            placement.planner = planner
        }
        return LoadPlan(
            placement: placement, quantization: plan, memory: memory, dtype: dtype, config: config,
            footprint: tree.footprint(plan, loadDType: dtype))
    }

    private func quantization(skipping: [String] = [], reference: Bool? = nil) -> QuantizationPlan {
        QuantizationPlan(
            source.architecture.tree, config: config, alsoSkipped: skipping, addedSkips: options.addedSkipModules,
            reference: reference ?? options.followsReference, keptInFloat32: !options.quantizesFloat32Modules)
    }

    private func memory(_ plan: QuantizationPlan, _ chunkTokens: Int) -> ModelMemory {
        ModelMemory(
            source.architecture, tree: tree, plan, loadDType: dtype, headFormat: options.headFormat, context: options.context,
            batch: options.batchSize, chunkTokens: chunkTokens, cacheQuantization: options.cacheQuantization,
            arithmetic: options.arithmetic(config, dtype: dtype), checkpointDType: checkpointDType,
            isStoredQuantized: source.storedQuantization != nil, operationBytes: request.operationBytes)
    }

    /// Under fp32 CPU offload, modules off the GPUs stay unquantized. A model that was planned wholly on the CPU is no
    /// offload; a map of the user's is taken at its word.
    private func modulesLeftFloat(_ placement: PlacementPlan) -> [String] {
        guard config?.int8EnableFP32CPUOffload == true else { return [] }
        if placement.planner != .explicit, placement.deviceMap.devices.allSatisfy({ !$0.isGPU }) { return [] }
        return placement.deviceMap.entries.filter { !$0.value.isGPU }.keys.sorted()
    }
}
