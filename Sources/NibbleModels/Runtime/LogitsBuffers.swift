import NibbleCore

/// Buffers for logits on the head's device and on the host. They are kept between calls and grow on demand.
///
/// The device buffer holds as many rows as the session has, and at least 16. Logits of every token of a prompt are computed in
/// slices of that size and collected on the host.
struct LogitsBuffers {
    private let backend: any Backend
    private let vocabularySize: Int
    /// Rows that the head computes at a time.
    private let sliceRows: Int
    private var deviceBuffer: Tensor?
    private var hostBuffer: Tensor?

    /// - Parameter rows: sequences side by side.
    init(backend: any Backend, vocabularySize: Int, rows: Int) {
        self.backend = backend
        sliceRows = LogitsBuffers.sliceRows(rows)
        self.vocabularySize = vocabularySize
    }

    static func sliceRows(_ rows: Int) -> Int { max(rows, 16) }

    /// float32 [rows, V] on the head's device. On a device that captures graphs the buffer is made for a whole slice at once,
    /// so that its address stays.
    mutating func device(rows: Int) throws -> Tensor {
        let least = backend.device == .cpu ? rows : max(rows, sliceRows)
        return try grown(&deviceBuffer, rows, atLeast: least) { try backend.allocate(.float32, $0) }
    }

    /// float32 [rows, V] on the host; the device buffer itself where the head runs on the CPU.
    mutating func host(rows: Int) throws -> Tensor {
        backend.device == .cpu ? try device(rows: rows) : output(rows: rows)
    }

    /// float32 [rows, V] on the host, apart from the device buffer.
    mutating func output(rows: Int) -> Tensor {
        grown(&hostBuffer, rows, atLeast: rows) { .host(.float32, $0) }
    }

    private func grown(
        _ buffer: inout Tensor?, _ rows: Int, atLeast least: Int, _ allocate: (Shape) throws -> Tensor
    ) rethrows -> Tensor {
        let shape = Shape(rows, vocabularySize)
        if let buffer, buffer.count >= shape.count { return buffer.viewed(as: shape) }
        let fresh = try allocate(Shape(least, vocabularySize))
        buffer = fresh
        return fresh.viewed(as: shape)
    }

    /// Computes logits of `rows` rows and stores them from row `offset` of the host tensor `target`.
    mutating func compute(
        rows: Int, at offset: Int, of target: Tensor, _ project: (_ range: Range<Int>, _ output: Tensor) throws -> Void
    ) throws {
        let destination = target.rows(offset..<offset + rows)
        guard backend.device != .cpu else { return try project(0..<rows, destination) }
        for first in stride(from: 0, to: rows, by: sliceRows) {
            let range = first..<min(first + sliceRows, rows)
            let local = try device(rows: range.count)
            try project(range, local)
            try backend.read(local, into: destination.rows(range).mutableHostBytes)
        }
    }
}
