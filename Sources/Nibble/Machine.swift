import NibbleCPU
import NibbleCUDA
public import NibbleCore

/// The devices of this machine.
public enum Machine {
    /// A backend for each device that is there, the CPU last. A GPU that cannot be used is left out; ``findings`` says why.
    public static func backends(threads: Int? = nil) -> [any Backend] {
        let cards = (try? CUDABackend.devices()) ?? []
        return cards.compactMap { try? CUDABackend($0) } + [CPUBackend(threads: threads)]
    }

    /// The libraries GPUs need, where each was found or looked for, and what keeps a GPU from being used.
    public static var findings: [String] {
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
        for backend in backends {
            guard let free = backend.availableBytes else { continue }
            budgets[backend.device] = backend.device == .cpu ? Int(Double(free) * plannedShare) : free
        }
        return budgets
    }
}
