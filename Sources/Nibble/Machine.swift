import NibbleCPU
import NibbleCUDA
package import NibbleCore
import NibbleDeviceMap

/// The devices of this machine.
package enum Machine {
    /// A backend for each device that is there, the CPU last, each with a budget: what `limits` says, or else most of what
    /// is free. A GPU that cannot be used is left out; ``findings`` says why.
    /// - Parameters:
    ///   - limits: bytes by device. If they name any, GPUs that they do not name are left out, and a CPU that they do not
    ///     name has no limit.
    ///   - mapped: devices that are wanted though no limit names them.
    package static func backends(
        threads: Int? = nil, limits: [Device: Int] = [:], mapped: Set<Device> = []
    ) -> [any Backend] {
        let cards = (try? CUDABackend.devices()) ?? []
        let isLimited = limits.keys.contains { $0 != .disk }
        // One card may stand under several numbers, each with its own budget.
        let gpus = cards.enumerated().compactMap { number, card -> (any Backend)? in
            let device = Device.cuda(number)
            let limit = limits[device].flatMap { $0 > 0 ? $0 : nil }
            guard !isLimited || limit != nil || mapped.contains(device) else { return nil }
            return try? CUDABackend(card, as: device, budget: limit, sharers: cards.count { $0 == card })
        }
        let limit = isLimited ? limits[.cpu].flatMap { $0 > 0 ? $0 : nil } : plannedMemory
        return gpus + [CPUBackend(threads: threads, budget: limit)]
    }

    /// - Throws: `CUDAUnavailable` if `NIBBLE_CUDA_DEVICES` names what is not there.
    static func checkDeviceList() throws {
        do {
            _ = try CUDABackend.devices()
        } catch let error as CUDAUnavailable {
            if case .badList = error { throw error }
        }
    }

    /// Of the memory that is free, what is planned with.
    private static var plannedMemory: Int? { CPUBackend.freeMemory.map { Int(Double($0) * plannedShare) } }

    /// What operations of a device take beside activations, whether the machine has it or not.
    /// - Parameter limits: of devices that are not present.
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

    /// The libraries GPUs need, where each was found or looked for, and what keeps a GPU from being used.
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

    /// The share of the machine's free memory that is planned with.
    static let plannedShare = 0.9

    /// What each device can give, where nobody named limits.
    static func budgets(_ backends: [any Backend]) -> [Device: Int] {
        var budgets: [Device: Int] = [:]
        for backend in backends { budgets[backend.device] = backend.availableBytes }
        return budgets
    }
}
