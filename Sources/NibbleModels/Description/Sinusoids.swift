import Foundation

/// The frequencies of a fixed position table.
package enum Sinusoids: Sendable {
    /// Those of "Attention is all you need" (arXiv 1706.03762), as Marian and Pegasus use them.
    case transformer
    /// Fairseq's, as M2M100 and XGLM use them: the last frequency is exactly 1/10000, and positions begin at 2.
    case fairseq

    /// [positions, width]: sines in the first half of a row, cosines in the second.
    func table(positions: Int, width: Int) -> [Float] {
        switch self {
        case .transformer: transformerTable(positions, width)
        case .fairseq: fairseqTable(positions, width)
        }
    }

    private func transformerTable(_ positions: Int, _ width: Int) -> [Float] {
        let sines = (width + 1) / 2
        return (0..<positions).flatMap { position in
            (0..<width).map { column in
                let index = column < sines ? column : column - sines
                let angle = Double(position) / pow(10000, 2 * Double(index) / Double(width))
                return Float(column < sines ? sin(angle) : cos(angle))
            }
        }
    }

    /// In float32 throughout, as the reference computes it. An odd width ends in a column of zeros.
    private func fairseqTable(_ positions: Int, _ width: Int) -> [Float] {
        let half = width / 2
        let step = -Float(log(10000.0) / Double(max(half - 1, 1)))
        let frequencies = (0..<half).map { exp(Float($0) * step) }
        return (0..<positions).flatMap { position in
            let angles = frequencies.map { Float(position + 2) * $0 }
            return angles.map { sin($0) } + angles.map { cos($0) } + Array(repeating: 0, count: width % 2)
        }
    }
}
