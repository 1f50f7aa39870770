import NibbleCore

/// The activations of one backend, allocated once for the largest call.
///
/// Each function returns a view of as many rows as the call has tokens. The residual stream is float32 whatever the
/// activations' dtype is, so that sums over many layers neither lose precision nor overflow.
final class ActivationBuffers {
    /// float32 [T, E]: the residual stream.
    private let hiddenBuffer: Tensor
    /// float32 [R, E]: rows of it.
    private let gatheredBuffer: Tensor
    /// [T, E]: a norm's output; the second one serves parallel blocks.
    private let normedBuffers: (Tensor, Tensor)
    /// [T, widest projection]
    private let projectionBuffer: Tensor
    /// [T, H·D]
    private let attendedBuffer: Tensor
    /// [T, up to 2F]
    private let innerBuffer: Tensor
    /// [T, F]
    private let gatedBuffer: Tensor
    /// float32 [T, X]: router logits and shared-expert gates.
    private let routerBuffer: Tensor

    let sizes: ActivationWidths

    init(_ sizes: ActivationWidths, tokens: Int, rows: Int, dtype: DType, backend: any Backend) throws {
        func buffer(_ width: Int, _ dtype: DType = dtype, rows: Int = tokens) throws -> Tensor {
            try backend.allocate(dtype, [max(rows, 1), max(width, 1)])
        }
        self.sizes = sizes
        hiddenBuffer = try buffer(sizes.width, .float32)
        gatheredBuffer = try buffer(sizes.width, .float32, rows: rows)
        normedBuffers = (try buffer(sizes.width), try buffer(sizes.width))
        projectionBuffer = try buffer(sizes.projections)
        attendedBuffer = try buffer(sizes.attended)
        innerBuffer = try buffer(sizes.inner)
        gatedBuffer = try buffer(sizes.gated)
        routerBuffer = try buffer(sizes.router, .float32)
    }

    func hidden(_ tokens: Int) -> Tensor { hiddenBuffer.viewed(as: Shape(tokens, sizes.width)) }
    func gathered(_ rows: Int) -> Tensor { gatheredBuffer.viewed(as: Shape(rows, sizes.width)) }
    func normed(_ tokens: Int) -> Tensor { normedBuffers.0.viewed(as: Shape(tokens, sizes.width)) }
    func secondNormed(_ tokens: Int) -> Tensor { normedBuffers.1.viewed(as: Shape(tokens, sizes.width)) }
    func projections(_ tokens: Int, width: Int) -> Tensor { projectionBuffer.viewed(as: Shape(tokens, width)) }
    func attended(_ tokens: Int, width: Int) -> Tensor { attendedBuffer.viewed(as: Shape(tokens, width)) }
    func inner(_ tokens: Int, width: Int) -> Tensor { innerBuffer.viewed(as: Shape(tokens, width)) }
    func gated(_ tokens: Int, width: Int) -> Tensor { gatedBuffer.viewed(as: Shape(tokens, width)) }
    func router(_ tokens: Int, width: Int) -> Tensor { routerBuffer.viewed(as: Shape(tokens, width)) }
}

/// The widths of the activations that a set of blocks needs at most.
package struct ActivationWidths: Sendable, Equatable {
    /// E
    package var width: Int
    package var projections = 0
    package var attended = 0
    package var inner = 0
    package var gated = 0
    package var router = 0

    package init(width: Int) { self.width = width }

    /// The larger of both, width by width.
    package func widened(_ other: ActivationWidths) -> ActivationWidths {
        var sizes = ActivationWidths(width: max(width, other.width))
        sizes.projections = max(projections, other.projections)
        sizes.attended = max(attended, other.attended)
        sizes.inner = max(inner, other.inner)
        sizes.gated = max(gated, other.gated)
        sizes.router = max(router, other.router)
        return sizes
    }

    /// Bytes for `tokens` tokens of `rows` rows, `elementSize` bytes an activation.
    package func byteCount(tokens: Int, rows: Int, elementSize: Int) -> Int {
        let streams = (tokens + rows) * width + tokens * router
        return tokens * (2 * width + projections + attended + inner + gated) * elementSize + streams * DType.float32.byteCount
    }
}
