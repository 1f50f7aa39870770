import NibbleCore
import NibbleDeviceMap

extension LoadConfiguration {
    /// - Parameter present: the machine's backends; devices that are not among them are left out, with a warning. `nil`: all
    ///   that the limits name are taken as present.
    /// - Throws: `MemoryLimitError`
    func placementRequest(present: [any Backend]?, warnings: inout [String]) throws -> PlacementRequest {
        var request = PlacementRequest()
        request.deviceMap = deviceMap
        request.followsReference = usesReferencePlanner || loader.followsReference
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
        return MachineBackends.backends(
            threads: threads, limits: try maxMemory.mapValues { try $0.bytes() }, mapped: mapped,
            isBatchInvariant: batchInvariant)
    }
}
