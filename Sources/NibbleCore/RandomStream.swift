/// Nibble's random numbers for sampling: a pure function of (seed, stream, counter), the same on every device and platform.
///
/// A stream belongs to a row, the counter to the row's step, so a row draws the same numbers whatever batch it is in. The
/// mixing is SplitMix64's finalizer (Steele, Lea, Flood 2014), applied to each argument in turn.
package enum RandomStream {
    /// Uniform in [0, 1), a multiple of 2⁻²⁴.
    package static func uniform(seed: UInt64, stream: UInt64, counter: UInt64) -> Float {
        let bits = mix(mix(mix(seed) ^ stream) ^ counter)
        return Float(bits >> 40) * 0x1p-24
    }

    /// One step of SplitMix64.
    package static func mix(_ value: UInt64) -> UInt64 {
        var z = value &+ 0x9E37_79B9_7F4A_7C15
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
