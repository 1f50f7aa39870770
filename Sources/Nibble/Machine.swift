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
}
