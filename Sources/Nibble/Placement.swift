public import Foundation
import NibbleLoading
import NibbleModels

/// What a load would put where; no weight is read.
public struct Placement: Sendable {
    /// Devices, module ranges and the memory they take.
    public let plan: PlacementPlan
    /// The dtype the model would be loaded in.
    public let dtype: DType
    /// The quantization in effect: the one asked for, or the checkpoint's own.
    public let quantization: BitsAndBytesConfig?
    /// Bytes as transformers' `get_memory_footprint` counts them.
    public let footprint: Int
    /// Tokens and sequences that caches are counted for.
    public let context: Int
    /// Sequences side by side that caches are counted for.
    public let batchSize: Int
    package let estimate: MemoryEstimate
    /// What a user should know about the request.
    public let warnings: [String]

    /// Plans the model in `folder`, of which only `config.json` need be there. Devices named in
    /// ``LoadConfiguration/maxMemory`` are taken as present.
    /// - Throws: `DeviceMapError`, `LoadError`, `ModelError`, `QuantizationConfigError`.
    public static func plan(folder: URL, _ configuration: LoadConfiguration) throws -> Placement {
        let source = try ModelSource(folder: folder)
        try configuration.quantization?.validate()
        var warnings = [String]()
        let request = try configuration.placementRequest(present: nil, warnings: &warnings)
        let found = try ModelLoader.plan(source, options: configuration.loadOptions, request)
        return Placement(
            plan: found.placed.placement, dtype: found.dtype, quantization: found.config, footprint: found.placed.footprint,
            context: found.placed.memory.context, batchSize: found.placed.memory.batch,
            estimate: MemoryEstimate(source.architecture.tree),
            warnings: warnings + found.warnings + found.placed.placement.warnings)
    }
}

extension LoadConfiguration {
    /// - Parameter present: the machine's backends; devices that are not among them are left out, with a warning. `nil`: all
    ///   that the limits name are taken as present.
    /// - Throws: `MemoryLimitError`
    func placementRequest(present: [any Backend]?, warnings: inout [String]) throws -> PlacementRequest {
        var request = PlacementRequest()
        request.deviceMap = deviceMap
        request.followsReference = usesReferencePlanner || followsReference
        request.limits = try maxMemory.mapValues { try $0.bytes() }
        if let present {
            for device in request.limits.keys.sorted()
            where device.isGPU && request.limits[device] != 0 && !present.contains(where: { $0.device == device }) {
                warnings.append("--max-memory names \(device), which this machine does not have")
                request.limits[device] = nil
            }
        }
        if request.limits.keys.allSatisfy({ $0 == .disk }) {
            request.limitsAreGiven = false
            request.limits.merge(MachineBackends.budgets(present ?? MachineBackends.backends(threads: threads))) { given, _ in
                given
            }
        }
        request.operationBytes = MachineBackends.operationBytes(present ?? [], limits: request.limits, threads: threads)
        return request
    }

    /// The machine's backends for this load, each with its budget.
    func machine() throws -> [any Backend] {
        guard backends.isEmpty else { return backends }
        try MachineBackends.checkDeviceList()
        let mapped: Set<Device> =
            switch deviceMap {
            case .explicit(let map): Set(map.devices)
            case .device(let device): [device]
            default: []
            }
        return MachineBackends.backends(threads: threads, limits: try maxMemory.mapValues { try $0.bytes() }, mapped: mapped)
    }
}
