import NibbleCUDA
import NibbleCore

/// The first GPU, for suites that need one.
enum Card {
    static let first = try? CUDABackend.devices().first
    static var isThere: Bool { first != nil }

    struct Missing: Error {}

    static func backend(
        as device: Device? = nil, budget: Int = 2 << 30, options: CUDAOptions = .init()
    ) throws -> CUDABackend {
        guard let first else { throw Missing() }
        return try CUDABackend(first, as: device, budget: budget, options: options)
    }
}

extension Backend {
    /// A copy of a host tensor on this device.
    func upload(_ host: Tensor) throws -> Tensor {
        let tensor = try allocate(host.dtype, host.shape)
        try copy(host, to: tensor)
        return tensor
    }

    func bytes(_ tensor: Tensor) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: tensor.byteCount)
        try bytes.withUnsafeMutableBytes { try read(tensor, into: $0) }
        return bytes
    }

    func elements<Element: BitwiseCopyable>(_ tensor: Tensor, _: Element.Type) throws -> [Element] {
        let bytes = try bytes(tensor)
        return bytes.withUnsafeBytes { Array($0.bindMemory(to: Element.self)) }
    }
}
