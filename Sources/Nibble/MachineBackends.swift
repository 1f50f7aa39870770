import NibbleCPU
import NibbleCUDA
package import NibbleCore
import NibbleDeviceMap

/// The backends of this machine's devices.
package enum MachineBackends {
    /// A backend for each device, the CPU last. Each has a budget: its limit, or most of its free memory. GPUs that cannot be used
    /// are left out; ``findings`` says why.
    /// - Parameters:
    ///   - limits: bytes by device. If any are given, GPUs without a limit are left out, and a CPU without one is not limited.
    ///   - mapped: devices to include even if they have no limit.
    ///   - isBatchInvariant: whether a row's results are the same bits whatever else is in its call.
    package static func backends(
        threads: Int? = nil, limits: [Device: Int] = [:], mapped: Set<Device> = [], isBatchInvariant: Bool = false
    ) -> [any Backend] {
        let cards = (try? CUDABackend.devices()) ?? []
        let isLimited = limits.keys.contains { $0 != .disk }
        // NIBBLE_CUDA_DEVICES may list a card several times; each entry has its own budget.
        var options = CUDAOptions()
        options.isBatchInvariant = isBatchInvariant
        let gpus = cards.enumerated().compactMap { number, card -> (any Backend)? in
            let device = Device.cuda(number)
            let limit = limits[device].flatMap { $0 > 0 ? $0 : nil }
            guard !isLimited || limit != nil || mapped.contains(device) else { return nil }
            return try? CUDABackend(card, as: device, budget: limit, sharers: cards.count { $0 == card }, options: options)
        }
        let limit = isLimited ? limits[.cpu].flatMap { $0 > 0 ? $0 : nil } : plannedMemory
        return gpus + [CPUBackend(threads: threads, budget: limit, isBatchInvariant: isBatchInvariant)]
    }

    /// - Throws: ``CUDAUnavailable/badList(_:count:)`` if `NIBBLE_CUDA_DEVICES` lists GPUs that do not exist.
    static func checkDeviceList() throws {
        do {
            _ = try CUDABackend.devices()
        } catch let error as CUDAUnavailable {
            if case .badList = error { throw error }
        }
    }

    /// The part of the free memory that plans may use.
    private static var plannedMemory: Int? { CPUBackend.freeMemory.map { Int(Double($0) * plannedShare) } }

    /// Bytes that a device's operations take besides activations, for devices of this machine and others.
    /// - Parameter limits: budgets of devices that are not present.
    static func operationBytes(
        _ present: [any Backend], limits: [Device: Int], threads: Int?
    ) -> ModelMemory.OperationBytes {
        let cpu = present.first { $0.device == .cpu } ?? CPUBackend(threads: threads)
        return { device, request in
            let backend = device == .cpu ? cpu : present.first { $0.device == device }
            if let backend { return backend.workspaceBytes(for: request) }
            let options = CUDAOptions()
            return CUDABackend.workspaceBytes(
                for: request, options: limits[device].map { options.within(budget: $0) } ?? options)
        }
    }

    /// Where each library that GPUs need was found or looked for, and why a GPU cannot be used.
    package static var findings: [String] {
        let driver = CUDALibraries.driver
        guard driver.opened != nil else { return [driver.description] }
        let libraries = [driver, CUDALibraries.compiler, CUDALibraries.matrixProducts].map(\.description)
        do {
            return libraries + (try CUDABackend.devices().compactMap(objection))
        } catch {
            return libraries + ["\(error)"]
        }
    }

    private static func objection(to card: CUDADevice) -> String? {
        do {
            _ = try CUDABackend(card)
            return nil
        } catch {
            return "\(card.device): \(error)"
        }
    }

    /// The share of the free memory that plans may use.
    static let plannedShare = 0.9

    /// The budgets of devices without limits.
    static func budgets(_ backends: [any Backend]) -> [Device: Int] {
        var budgets: [Device: Int] = [:]
        for backend in backends { budgets[backend.device] = backend.availableBytes }
        return budgets
    }
}
