import NibbleCPU
public import NibbleCore

/// The devices of this machine.
public enum Machine {
    /// A backend for each device that is there, the CPU last.
    public static func backends(threads: Int? = nil) -> [any Backend] { [CPUBackend(threads: threads)] }
}
