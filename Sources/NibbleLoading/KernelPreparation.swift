import Dispatch
import NibbleCore
import Synchronization

/// Compiles kernels while weights are loaded.
final class KernelPreparation: Sendable {
    private let group = DispatchGroup()
    private let failure = Mutex<(any Error)?>(nil)

    init(_ backends: some Sequence<any Backend>, _ request: KernelRequest) {
        for backend in backends {
            DispatchQueue.global().async(group: group) {
                do {
                    try backend.prepareKernels(request)
                } catch {
                    self.failure.withLock { $0 = error }
                }
            }
        }
    }

    /// Waits for all backends.
    /// - Throws: what a backend threw.
    func wait() throws {
        group.wait()
        if let failure = failure.withLock({ $0 }) { throw failure }
    }
}
