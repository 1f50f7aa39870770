internal import CNibbleCPU

/// The instruction sets the kernels use.
package enum CPUFeatures {
    /// Names of the levels this machine can run, poorest first: `generic`, `avx2`, `avx512` …
    package static var levels: [String] {
        var count: Int32 = 0
        let supported = nibble_cpu_supported()
        guard let levels = nibble_cpu_levels(&count) else { return [] }
        return UnsafeBufferPointer(start: levels, count: Int(count))
            .filter { $0.features & supported == $0.features }
            .map { String(cString: $0.name) }
    }

    /// The level in use. The environment variable `NIBBLE_CPU` chooses another than the best.
    package static var level: String {
        nibble_cpu_initialize()
        return String(cString: nibble_cpu_level_name())
    }

    /// A word in `NIBBLE_CPU` that is unknown or asks for more than the machine has.
    package static var refusedLevel: String? {
        nibble_cpu_initialize()
        return nibble_cpu_refused_level().map { String(cString: $0) }
    }
}
