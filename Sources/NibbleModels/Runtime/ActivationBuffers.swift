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
    /// float32 [T, L·P]: the per-layer inputs, in models that have them.
    private let perLayerBuffer: Tensor?
    /// int32 [T, k] and float32 [T, k]: the experts of each token and their weights.
    private let chosenBuffers: (ids: Tensor, weights: Tensor)
    /// int32 [T × pieces], by order: see ``ColumnOrder/indices(tokens:)``.
    private let orderIndices: [Tensor]

    let sizes: ActivationWidths
    /// What the tokens of a call take of the adapters.
    var adapters: AdapterRows?

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
        perLayerBuffer = buffers["per layer"]
        chosenBuffers = (buffer("chosen experts"), buffer("expert weights"))
        orderIndices = try sizes.orders.indices.map { index in
            let target = buffer(ActivationWidths.orderName(index))
            try backend.copy(
                .host(sizes.orders[index].indices(tokens: max(tokens, 1)), .int32, target.shape), to: target)
            return target
        }
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
    func perLayer(_ tokens: Int) -> Tensor {
        guard let perLayerBuffer else { preconditionFailure("there are no per-layer inputs") }
        return perLayerBuffer.viewed(as: Shape(tokens, sizes.perLayer))
    }
    func chosenExperts(_ tokens: Int, count: Int) -> (ids: Tensor, weights: Tensor) {
        (chosenBuffers.ids.viewed(as: Shape(tokens, count)), chosenBuffers.weights.viewed(as: Shape(tokens, count)))
    }

    /// int32 [T × pieces]: the indices that bring pieces of columns into `order`, one of ``ActivationWidths/orders``.
    func indices(_ order: ColumnOrder, tokens: Int) -> Tensor {
        guard let index = sizes.orders.firstIndex(of: order) else { preconditionFailure("an order that no block has") }
        return orderIndices[index].viewed(as: Shape(tokens * order.pieces.count))
    }
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
    /// L·P; 0 where layers have no inputs of their own.
    package var perLayer = 0
    /// k
    package var chosenExperts = 0
    /// Orders that columns are brought into.
    package var orders: [ColumnOrder] = []

    package init(width: Int) { self.width = width }

    /// The larger of both, width by width.
    package func widened(_ other: ActivationWidths) -> ActivationWidths {
        var sizes = ActivationWidths(width: max(width, other.width))
        sizes.projections = max(projections, other.projections)
        sizes.attended = max(attended, other.attended)
        sizes.inner = max(inner, other.inner)
        sizes.gated = max(gated, other.gated)
        sizes.router = max(router, other.router)
        sizes.perLayer = max(perLayer, other.perLayer)
        sizes.chosenExperts = max(chosenExperts, other.chosenExperts)
        sizes.orders = orders + other.orders.filter { !orders.contains($0) }
        return sizes
    }

    /// Grows to what the experts' input and output of the width `latent` take.
    mutating func widen(latent: Int) {
        gated = max(gated, latent)
        inner = max(inner, latent)
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
            buffer("chosen experts", chosenExperts, .int32), buffer("expert weights", chosenExperts, .float32),
        ]
            + (perLayer > 0 ? [buffer("per layer", perLayer, .float32)] : [])
            + orders.enumerated().map { index, order in
                BufferShape(ActivationWidths.orderName(index), .int32, [max(tokens, 1) * order.pieces.count])
            }
    }

    static func orderName(_ index: Int) -> String { "column order \(index)" }
}
