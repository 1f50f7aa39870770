import Foundation

/// The fixed position table of "Attention is all you need" (arXiv 1706.03762), in the layout Marian and Pegasus use.
enum Sinusoids {
    /// [positions, width]: sines in the first half of a row, cosines in the second.
    static func table(positions: Int, width: Int) -> [Float] {
        let sines = (width + 1) / 2
        return (0..<positions).flatMap { position in
            (0..<width).map { column in
                let index = column < sines ? column : column - sines
                let angle = Double(position) / pow(10000, 2 * Double(index) / Double(width))
                return Float(column < sines ? sin(angle) : cos(angle))
            }
        }
    }
}
