internal import CNibbleCPU
package import NibbleCore

/// The operations on the CPU, in float32 whatever the weights' dtype.
///
/// Operations run at once: nothing is queued, so ``synchronize()`` has nothing to wait for. Several tasks may use one
/// backend; operations that share workspace take turns.
package final class CPUBackend: Backend {
    package let device: Device
    package let pool: ThreadPool

    let budget: MemoryBudget
    /// Workspace of the linear layers.
    let linearWork: WorkBuffer
    /// Workspace of mixtures, in use around their linear layers.
    let expertsWork: WorkBuffer
    /// Workspace of attention and selection.
    let operationWork: WorkBuffer

    /// - Parameters:
    ///   - threads: `nil` means one a core this process may use.
    ///   - budget: the most bytes this backend may hold at a time, workspace included; `nil` means no limit.
    ///   - device: the name under which it appears. Under another than the CPU's it stands in for that device: others cannot
    ///     read its memory except through it.
    package init(threads: Int? = nil, budget: Int? = nil, as device: Device = .cpu) {
        nibble_cpu_initialize()
        pool = ThreadPool(threads: threads)
        self.device = device
        self.budget = MemoryBudget(limit: budget, of: device)
        linearWork = WorkBuffer(budget: self.budget)
        expertsWork = WorkBuffer(budget: self.budget)
        operationWork = WorkBuffer(budget: self.budget)
    }

    package var summary: String {
        let threads = pool.threadCount == 1 ? "1 thread" : "\(pool.threadCount) threads"
        let refused = CPUFeatures.refusedLevel.map { " (NIBBLE_CPU=\($0) is unknown or more than this CPU has)" } ?? ""
        return "CPU, \(CPUFeatures.level)\(refused), \(threads)"
    }

    package var memoryUse: MemoryUse {
        MemoryUse(held: budget.usedBytes, peak: budget.peakBytes, budget: budget.limit)
    }

    package func activationDType(loadDType: DType) -> DType { .float32 }
    package func synchronize() throws {}
}
