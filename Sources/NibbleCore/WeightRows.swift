/// A weight [N, K] whose rows are computed when they are asked for, so that the whole of it need not be in memory.
package protocol WeightRows: Sendable {
    /// [N, K]
    var shape: Shape { get }
    /// float32, float16 or bfloat16
    var dtype: DType { get }
    /// Ranges of rows begin at a multiple of this, and end at one or at N.
    var rowUnit: Int { get }

    /// Writes `rows.count` rows of K elements. May run on several threads at a time.
    func write(_ rows: Range<Int>, to target: UnsafeMutableRawBufferPointer)
}

extension WeightRows {
    /// How many rows have about `elements` elements, in whole units.
    /// - Parameter step: what the number of elements is a multiple of.
    package func slabRows(elements: Int, multipleOf step: Int = 1) -> Int {
        func greatestCommonDivisor(_ a: Int, _ b: Int) -> Int { b == 0 ? a : greatestCommonDivisor(b, a % b) }
        let unitElements = max(shape.last * rowUnit, 1)
        let unit = rowUnit * (step / greatestCommonDivisor(step, unitElements))
        return max(elements / max(shape.last * unit, 1), 1) * unit
    }
}
