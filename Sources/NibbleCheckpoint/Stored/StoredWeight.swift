import Dispatch
import NibbleCore

/// A weight that a checkpoint holds in the form of another quantizer than bitsandbytes: its place and its dense shape.
///
/// Headers alone were read. Scales are read, and checked, where a ``RowDecoder`` is made.
protocol StoredWeight: Sendable {
    /// Of the dense weight: [N, K], or [E, N, K], whose E·N rows follow each other.
    var shape: Shape { get }
    /// Names of the tensors that make it up. The first holds the codes.
    var tensors: [String] { get }

    /// - Throws: ``CheckpointError`` where scales are not finite, or indices out of range.
    func decoder(_ checkpoint: any Checkpoint) throws -> any RowDecoder
}

/// Turns a stored weight into rows of float32.
protocol RowDecoder: Sendable {
    /// Ranges of rows begin at a multiple of this, and end at one or at the last row of all.
    var rowUnit: Int { get }

    /// Writes `rows.count` rows of K numbers.
    func decode(_ rows: Range<Int>, into target: UnsafeMutablePointer<Float>)

    /// Writes the same numbers rounded to 16 bits by `round`, where that is faster than rounding each on its own.
    /// - Returns: false where it is not; nothing was written then.
    func decode(_ rows: Range<Int>, into target: UnsafeMutablePointer<UInt16>, round: (Float) -> UInt16) -> Bool
}

extension RowDecoder {
    var rowUnit: Int { 1 }

    func decode(_ rows: Range<Int>, into target: UnsafeMutablePointer<UInt16>, round: (Float) -> UInt16) -> Bool { false }
}

extension StoredWeight {
    /// Some rows of the dense weight, counted over all its matrices, in `dtype`: float32, float16 or bfloat16. All cores take
    /// part.
    /// - Precondition: `range` begins and ends where the decoder's unit allows it.
    func rows(_ range: Range<Int>, as dtype: DType, shape: Shape, _ checkpoint: any Checkpoint) throws -> Tensor {
        let decoder = try decoder(checkpoint)
        let result = Tensor.decoded(dtype, shape)
        let width = self.shape.last
        guard result.count > 0 else { return result }
        // A slab of float32 stays in a core's cache until it is rounded.
        let units = max(SlabSize.elements / (width * decoder.rowUnit), 1)
        let slab = min(units * decoder.rowUnit, range.count)
        let slabs = (range.count + slab - 1) / slab
        DispatchQueue.concurrentPerform(iterations: slabs) { index in
            let first = range.lowerBound + index * slab
            let rows = first..<min(first + slab, range.upperBound)
            let start = (first - range.lowerBound) * width * dtype.byteCount
            let bytes = UnsafeMutableRawBufferPointer(
                rebasing: result.mutableHostBytes[start..<start + rows.count * width * dtype.byteCount])
            FloatRows.write(bytes, dtype, rows, count: rows.count * width, decoder)
        }
        return result
    }
}

private enum SlabSize {
    static let elements = 1 << 16
}

/// Rounds float32 to the dtype of a tensor.
enum FloatRows {
    /// Decodes rows of `count` numbers together, and stores them in `bytes` as `dtype`.
    static func write(
        _ bytes: UnsafeMutableRawBufferPointer, _ dtype: DType, _ rows: Range<Int>, count: Int, _ decoder: any RowDecoder
    ) {
        guard let address = bytes.baseAddress else { return }
        if dtype == .float32 { return decoder.decode(rows, into: address.bindMemory(to: Float.self, capacity: count)) }
        let target = address.bindMemory(to: UInt16.self, capacity: count)
        let round: (Float) -> UInt16 = dtype == .float16 ? { halfBits($0) } : { BFloat16($0).bitPattern }
        if decoder.decode(rows, into: target, round: round) { return }
        withUnsafeTemporaryAllocation(of: Float.self, capacity: count) { scratch in
            guard let source = scratch.baseAddress else { return }
            decoder.decode(rows, into: source)
            if dtype == .float16 { toHalf(source, target, count) } else { toBrain(source, target, count) }
        }
    }

    private static func toHalf(_ source: UnsafePointer<Float>, _ target: UnsafeMutablePointer<UInt16>, _ count: Int) {
        for index in 0..<count { target[index] = halfBits(source[index]) }
    }

    /// As `BFloat16(_:)`, without branches, so that it vectorises.
    private static func toBrain(_ source: UnsafePointer<Float>, _ target: UnsafeMutablePointer<UInt16>, _ count: Int) {
        for index in 0..<count {
            let bits = source[index].bitPattern
            let rounded = (bits &+ 0x7FFF &+ ((bits >> 16) & 1)) >> 16
            let isNaN = bits & 0x7FFF_FFFF > 0x7F80_0000
            target[index] = UInt16(truncatingIfNeeded: isNaN ? (bits >> 16) | 0x40 : rounded)
        }
    }
}
