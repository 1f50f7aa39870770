import Dispatch
import NibbleCore
import Synchronization

/// Kernels are made while weights are read.
final class KernelPreparation: Sendable {
    private let group = DispatchGroup()
    private let failure = Mutex<(any Error)?>(nil)

    init(_ backends: some Sequence<any Backend>, loadDType: DType) {
        for backend in backends {
            DispatchQueue.global().async(group: group) {
                do {
                    try backend.prepareKernels(loadDType: loadDType)
                } catch {
                    self.failure.withLock { $0 = error }
                }
            }
        }
    }

    /// - Throws: what stopped a backend.
    func wait() throws {
        group.wait()
        if let failure = failure.withLock({ $0 }) { throw failure }
    }
}
