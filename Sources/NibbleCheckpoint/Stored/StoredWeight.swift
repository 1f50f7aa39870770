import Dispatch
package import NibbleCore

/// A weight that a checkpoint holds in the form of another quantizer than bitsandbytes: its place and its dense shape.
///
/// Headers alone were read. Scales are read, and checked, where a ``RowDecoder`` is made.
protocol StoredWeight: Sendable {
    /// Of the dense weight: [N, K], or [E, N, K], whose E·N rows follow each other.
    var shape: Shape { get }
    /// Names of the tensors that make it up. The first holds the codes.
    var tensors: [String] { get }

    /// - Parameter matrices: of a set; 0 ..< 1 for a single matrix. Rows are counted from the first of them.
    /// - Throws: ``CheckpointError`` where scales are not finite, or indices out of range.
    func decoder(_ checkpoint: any Checkpoint, _ kernels: StoredKernels, matrices: Range<Int>) throws -> any RowDecoder
}

/// Turns a stored weight into rows of float32.
protocol RowDecoder: Sendable {
    var kernels: StoredKernels { get }
    /// Ranges of rows begin at a multiple of this, and end at one or at the last row of all.
    var rowUnit: Int { get }

    /// Writes `rows.count` rows of K numbers.
    func decode(_ rows: Range<Int>, into target: UnsafeMutablePointer<Float>)
}

extension RowDecoder {
    var rowUnit: Int { 1 }
}

/// Rows of a stored weight in a dtype of choice, each element rounded once.
struct StoredRows: WeightRows {
    let decoder: any RowDecoder
    let dtype: DType
    let shape: Shape

    var rowUnit: Int { decoder.rowUnit }

    func write(_ rows: Range<Int>, to target: UnsafeMutableRawBufferPointer) {
        guard let target = target.baseAddress, shape.count > 0 else { return }
        let width = shape.last
        if dtype == .float32 {
            return decoder.decode(rows, into: target.bindMemory(to: Float.self, capacity: rows.count * width))
        }
        // A few rows at a time stay in a core's first cache until they are rounded.
        let step = max(Self.scratchElements / (width * rowUnit), 1) * rowUnit
        withUnsafeTemporaryAllocation(of: Float.self, capacity: min(step, rows.count) * width) { scratch in
            guard let scratch = scratch.baseAddress else { return }
            for start in stride(from: rows.lowerBound, to: rows.upperBound, by: step) {
                let part = start..<min(start + step, rows.upperBound)
                decoder.decode(part, into: scratch)
                decoder.kernels.narrow(
                    scratch, to: dtype, target + (start - rows.lowerBound) * width * dtype.byteCount, count: part.count * width)
            }
        }
    }

    private static let scratchElements = 1 << 12

}

extension WeightRows {
    /// All rows, under another shape of as many elements if there is one. All cores take part.
    package func tensor(_ other: Shape? = nil) -> Tensor {
        let result = Tensor.decoded(dtype, other ?? shape)
        guard result.count > 0 else { return result }
        let count = shape[0]
        let slab = slabRows(elements: 1 << 16)
        let rowBytes = shape.last * dtype.byteCount
        DispatchQueue.concurrentPerform(iterations: (count + slab - 1) / slab) { index in
            let rows = index * slab..<min((index + 1) * slab, count)
            write(
                rows,
                to: UnsafeMutableRawBufferPointer(
                    rebasing: result.mutableHostBytes[rows.lowerBound * rowBytes..<rows.upperBound * rowBytes]))
        }
        return result
    }
}
