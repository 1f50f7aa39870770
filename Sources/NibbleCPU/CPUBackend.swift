package import NibbleCore

/// The operations on the CPU, in float32 whatever the weights' dtype.
///
/// An operation has finished when it returns, so ``synchronize()`` has nothing to wait for. Several tasks may use one backend;
/// operations that share scratch memory take turns.
package final class CPUBackend: Backend {
    package let device: Device
    package let pool: ThreadPool

    /// Whether a row's results are the same bits whatever else is in its call. One row then runs as slowly as several.
    package let isBatchInvariant: Bool
    let budget: MemoryBudget
    let linearScratch: GrowingBuffer
    /// Of mixtures of experts, which use it around their linear layers.
    let expertsScratch: GrowingBuffer
    /// Of attention and selection.
    let operationScratch: GrowingBuffer

    /// - Parameters:
    ///   - threads: `nil` means one per core this process may use.
    ///   - level: the instructions to use; by default those that `NIBBLE_CPU` names, or the fastest of this machine.
    ///   - budget: the most bytes this backend may hold at a time, scratch memory included; `nil` means no limit.
    ///   - isBatchInvariant: see ``isBatchInvariant``.
    ///   - device: the device it presents itself as. As another than the CPU it stands in for that device: other backends reach
    ///     its memory only through it.
    package init(
        threads: Int? = nil, level: InstructionLevel = .standard, budget: Int? = nil, isBatchInvariant: Bool = false,
        as device: Device = .cpu
    ) {
        self.isBatchInvariant = isBatchInvariant
        pool = ThreadPool(threads: threads, level: level)
        self.device = device
        self.budget = MemoryBudget(limit: budget, of: device)
        linearScratch = GrowingBuffer(budget: self.budget)
        expertsScratch = GrowingBuffer(budget: self.budget)
        operationScratch = GrowingBuffer(budget: self.budget)
    }

    package var summary: String {
        let threads = pool.threadCount == 1 ? "1 thread" : "\(pool.threadCount) threads"
        let refused = InstructionLevel.refused.map { " (NIBBLE_CPU=\($0) is unknown or more than this CPU has)" } ?? ""
        return "CPU, \(pool.level)\(refused), \(threads)"
    }

    package var memoryUse: MemoryUse {
        MemoryUse(held: budget.usedBytes, peak: budget.peakBytes, budget: budget.limit)
    }

    package func activationDType(loadDType: DType) -> DType { .float32 }
    package func synchronize() throws {}
}
