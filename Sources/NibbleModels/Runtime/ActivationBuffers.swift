package import NibbleCore

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
        var buffers: [String: Tensor] = [:]
        for buffer in sizes.buffers(tokens: tokens, rows: rows, dtype: dtype) {
            buffers[buffer.name] = try backend.allocate(buffer.dtype, buffer.shape)
        }
        func buffer(_ name: String) -> Tensor {
            guard let buffer = buffers[name] else { preconditionFailure("there is no buffer \(name)") }
            return buffer
        }
        self.sizes = sizes
        hiddenBuffer = buffer("hidden")
        gatheredBuffer = buffer("gathered")
        normedBuffers = (buffer("normed"), buffer("second normed"))
        projectionBuffer = buffer("projections")
        attendedBuffer = buffer("attended")
        innerBuffer = buffer("inner")
        gatedBuffer = buffer("gated")
        routerBuffer = buffer("router")
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

    /// The buffers for calls of at most `tokens` tokens of `rows` rows.
    /// - Parameter dtype: the activations'; the residual stream and the router are float32.
    package func buffers(tokens: Int, rows: Int, dtype: DType) -> [BufferShape] {
        func buffer(_ name: String, _ width: Int, _ dtype: DType = dtype, rows: Int = tokens) -> BufferShape {
            BufferShape(name, dtype, [max(rows, 1), max(width, 1)])
        }
        return [
            buffer("hidden", width, .float32), buffer("gathered", width, .float32, rows: rows), buffer("normed", width),
            buffer("second normed", width), buffer("projections", projections), buffer("attended", attended),
            buffer("inner", inner), buffer("gated", gated), buffer("router", router, .float32),
        ]
    }
}
