internal import CNibbleCUDA

/// The CUDA sources that are built into the binary.
package enum CUDAKernelSources {
    package struct Source: Sendable {
        /// File name.
        package let name: String
        package let text: String
        /// A hash of the text.
        let digest: String

        package init(name: String, text: String) {
            self.name = name
            self.text = text
            digest = KernelCache.hash(text.utf8)
        }
    }

    /// Programs, each compiled on its own.
    package static let all: [Source] = sources(nibble_kernel_programs)
    /// Files they include.
    package static let headers: [Source] = sources(nibble_kernel_headers)

    private static func sources(
        _ list: (UnsafeMutablePointer<Int32>?) -> UnsafePointer<NibbleKernelSource>?
    ) -> [Source] {
        var count: Int32 = 0
        let first = list(&count)
        return UnsafeBufferPointer(start: first, count: Int(count)).map {
            Source(name: String(cString: $0.name), text: String(cString: $0.text))
        }
    }
}

/// The element type that a program's instances are limited to.
package enum KernelElement: Int, Sendable, CaseIterable {
    case f32, f16, bf16

    var define: String {
        switch self {
        case .f32: "-DNIBBLE_ONLY_F32"
        case .f16: "-DNIBBLE_ONLY_F16"
        case .bf16: "-DNIBBLE_ONLY_BF16"
        }
    }

    var suffix: String {
        switch self {
        case .f32: "_f32"
        case .f16: "_f16"
        case .bf16: "_bf16"
        }
    }

    /// NIBBLE_F32 and so on.
    var code: Int32 { Int32(rawValue) }
}
