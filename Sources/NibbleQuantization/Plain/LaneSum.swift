/// Sums float32 values in the order of torch's kernel for CPUs with vectors of eight floats, on one thread: the offset of nested scales
/// depends on it to the last bit.
enum LaneSum {
    private typealias Lanes = SIMD8<Float>

    static func mean(_ values: [Float]) -> Float { values.isEmpty ? 0 : sum(values) / Float(values.count) }

    /// Whole vectors are summed in four interleaved rows; then rows, what is left over, and lanes.
    static func sum(_ values: [Float]) -> Float {
        let width = Lanes.scalarCount
        let count = values.count / width
        func lanes(_ index: Int) -> Lanes { Lanes(values[index * width..<(index + 1) * width]) }
        let rows = 4
        var partial = (0..<rows).map { row in
            cascade(count / rows) { lanes($0 * rows + row) }
        }
        for index in count / rows * rows..<count { partial[0] += lanes(index) }
        let vector = partial.dropFirst().reduce(partial[0]) { $0 + $1 }
        let rest = values[(count * width)...].reduce(0, +)
        return vector.indices.reduce(rest) { $0 + vector[$1] }
    }

    /// A sum in four levels: each takes over what the level below it has gathered.
    private static func cascade(_ count: Int, _ value: (Int) -> Lanes) -> Lanes {
        let levels = 4
        let logarithm = count <= 1 ? 0 : Int.bitWidth - (count - 1).leadingZeroBitCount
        let power = max(4, logarithm / levels)
        var sums = [Lanes](repeating: .zero, count: levels)
        for index in 0..<count {
            sums[0] += value(index)
            // The last steps, which fill no level, stay in the lowest.
            guard (index + 1) % (1 << power) == 0 else { continue }
            for level in 1..<levels {
                sums[level] += sums[level - 1]
                sums[level - 1] = .zero
                if (index + 1) & (((1 << power) - 1) << (level * power)) != 0 { break }
            }
        }
        return sums.dropFirst().reduce(sums[0]) { $0 + $1 }
    }
}
