import NibbleCore

/// Memory for logits, on the head's device and on the host, kept between calls and grown when more is asked for.
///
/// On its device a session holds logits of as many rows as it has, and at least 16; those of every token of a prompt are the
/// caller's result, and made in slices.
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

    /// float32 [rows, V] on the head's device.
    mutating func device(rows: Int) throws -> Tensor {
        return try grown(&deviceBuffer, rows) { try backend.allocate(.float32, $0) }
    }

    /// float32 [rows, V] on the host; the device's own where that is the CPU.
    mutating func host(rows: Int) throws -> Tensor {
        backend.device == .cpu ? try device(rows: rows) : output(rows: rows)
    }

    /// float32 [rows, V] on the host, beside what the device holds.
    mutating func output(rows: Int) -> Tensor {
        grown(&hostBuffer, rows) { .host(.float32, $0) }
    }

    private func grown(_ buffer: inout Tensor?, _ rows: Int, _ allocate: (Shape) throws -> Tensor) rethrows -> Tensor {
        let shape = Shape(rows, vocabularySize)
        if let buffer, buffer.count >= shape.count { return buffer.viewed(as: shape) }
        let fresh = try allocate(shape)
        buffer = fresh
        return fresh
    }

    /// Computes logits of `rows` rows and puts them at row `offset` of the host tensor `target`.
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
