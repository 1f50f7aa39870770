package import NibbleCore
internal import NibbleQuantization

/// The rules by which 4-bit codes are compared with recorded ones.
package struct FourBitAgreement {
    package let codebook: FourBitFormat.Codebook
    package let blockSize: Int
    package let values: [Float]
    package let absmax: [Float]

    package init(codebook: FourBitFormat.Codebook, blockSize: Int, values: [Float], absmax: [Float]) {
        self.codebook = codebook
        self.blockSize = blockSize
        self.values = values
        self.absmax = absmax
    }

    /// The first element whose codes disagree. A code may be one interval off if the value is within 2 ulp of a threshold. Blocks
    /// with a zero, denormal or very large absmax are not compared. FP4's two zeros are equal.
    package func firstDisagreement(_ got: [UInt8], _ wanted: [UInt8]) -> Int? {
        values.indices.first { !agrees($0, got[$0], wanted[$0]) }
    }

    private func agrees(_ index: Int, _ got: UInt8, _ wanted: UInt8) -> Bool {
        let scale = absmax[index / blockSize]
        if got == wanted || !(scale >= 1.2e-38 && scale <= 8.5e37) { return true }
        if codebook == .fp4, got & 7 == 0, wanted & 7 == 0 { return true }
        let x = values[index] * (1 / scale)
        let (a, b) = (interval(got), interval(wanted))
        guard abs(a - b) == 1, codebook == .nf4 || got & 8 == wanted & 8 || min(a, b) == 0 else { return false }
        let threshold = codebook.thresholds[min(a, b)]
        return abs((codebook == .fp4 ? abs(x) : x) - threshold) <= 2 * threshold.ulp
    }

    private func interval(_ code: UInt8) -> Int {
        guard codebook == .fp4 else { return Int(code) }
        return FourBitFormat.Codebook.fp4Magnitudes.firstIndex(of: code & 7) ?? 0
    }
}
