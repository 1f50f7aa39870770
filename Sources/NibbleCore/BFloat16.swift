/// A 16-bit brain float: the upper half of a `Float`. Storage only; arithmetic happens in `Float`.
package struct BFloat16: Sendable, Hashable, BitwiseCopyable {
    package var bitPattern: UInt16

    package init(bitPattern: UInt16) { self.bitPattern = bitPattern }

    /// Rounds to nearest, ties to even; every NaN stays a (quiet) NaN.
    package init(_ value: Float) {
        let bits = value.bitPattern
        if value.isNaN {
            bitPattern = UInt16(truncatingIfNeeded: bits >> 16) | 0x40
        } else {
            bitPattern = UInt16(truncatingIfNeeded: (bits &+ 0x7FFF &+ ((bits >> 16) & 1)) >> 16)
        }
    }
}

extension Float {
    /// Exact.
    package init(_ value: BFloat16) { self.init(bitPattern: UInt32(value.bitPattern) << 16) }
}
