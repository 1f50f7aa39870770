import NibbleCPU
public import NibbleCore

/// The devices of this machine.
public enum Machine {
    /// A backend for each device that is there, the CPU last.
    public static func backends(threads: Int? = nil) -> [any Backend] { [CPUBackend(threads: threads)] }

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
