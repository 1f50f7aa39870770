import NibbleCore

/// Memory for logits, on the head's device and on the host, kept between calls and grown when more is asked for.
struct LogitsBuffers {
    private let backend: any Backend
    private let vocabularySize: Int
    private var deviceBuffer: Tensor?
    private var hostBuffer: Tensor?

    init(backend: any Backend, vocabularySize: Int) {
        self.backend = backend
        self.vocabularySize = vocabularySize
    }

    /// float32 [rows, V] on the head's device.
    mutating func device(rows: Int) throws -> Tensor {
        if backend.device == .cpu { return host(rows: rows) }
        return try grown(&deviceBuffer, rows) { try backend.allocate(.float32, $0) }
    }

    /// float32 [rows, V] on the host.
    mutating func host(rows: Int) -> Tensor {
        grown(&hostBuffer, rows) { .host(.float32, $0) }
    }

    private func grown(_ buffer: inout Tensor?, _ rows: Int, _ allocate: (Shape) throws -> Tensor) rethrows -> Tensor {
        let shape: Shape = [rows, vocabularySize]
        if let buffer, buffer.count >= shape.count { return buffer.viewed(as: shape) }
        let fresh = try allocate(shape)
        buffer = fresh
        return fresh
    }

    /// Computes logits of `rows` rows and puts them at row `offset` of the host tensor `target`.
    mutating func compute(rows: Int, at offset: Int, of target: Tensor, _ project: (Tensor) throws -> Void) throws {
        let destination = target.rows(offset..<offset + rows)
        guard backend.device != .cpu else { return try project(destination) }
        let local = try device(rows: rows)
        try project(local)
        try backend.read(local, into: destination.mutableHostBytes)
    }
}
