package import NibbleCore

/// A token mixer that keeps a state of fixed size of a row's past instead of keys and values: the last inputs of a causal
/// convolution and, in most, a float32 matrix.
package enum RecurrentDescription: Sendable {
    case shortConvolution(ShortConvolutionDescription)
    case gatedDelta(GatedDeltaDescription)
    case stateSpace(StateSpaceDescription)
}

/// A gated convolution (LFM2): C ⊙ conv(B ⊙ x), where B, C and x lie side by side in the projection's output.
package struct ShortConvolutionDescription: Sendable, Hashable {
    /// The width of B, C and x, and of the result.
    package var width: Int
    /// k
    package var kernel: Int

    package init(width: Int, kernel: Int) {
        self.width = width
        self.kernel = kernel
    }
}

/// A gated delta net (arXiv 2412.06464): a convolution over queries, keys and values, the gated delta rule, and a gated norm of
/// each head's output.
package struct GatedDeltaDescription: Sendable, Hashable {
    /// Hk
    package var keyHeads: Int
    /// Hv, a multiple of Hk
    package var valueHeads: Int
    /// K
    package var keySize: Int
    /// V
    package var valueSize: Int
    /// k of the convolution
    package var kernel: Int
    /// After the convolution.
    package var activation: Activation
    package var projections = Projections.sideBySide

    /// How the projections of queries, keys, values, the gate z and the scalars b and a are divided among linear layers.
    package enum Projections: Sendable {
        /// q | k | v, z, b and a (Qwen 3.5).
        case sideBySide
        /// One layer with q, k, v and z of each key head together, and one with its b and a (Qwen3-Next).
        case byKeyHead
    }

    package init(keyHeads: Int, valueHeads: Int, keySize: Int, valueSize: Int, kernel: Int, activation: Activation) {
        self.keyHeads = keyHeads
        self.valueHeads = valueHeads
        self.keySize = keySize
        self.valueSize = valueSize
        self.kernel = kernel
        self.activation = activation
    }

    /// Of queries, or of keys.
    var keyWidth: Int { keyHeads * keySize }
    var valueWidth: Int { valueHeads * valueSize }
    /// C: queries, keys and values.
    var channels: Int { 2 * keyWidth + valueWidth }
}

// MARK: - State

extension RecurrentDescription {
    /// C and k of the convolution.
    var convolution: (channels: Int, kernel: Int) {
        switch self {
        case .shortConvolution(let description): (description.width, description.kernel)
        case .gatedDelta(let description): (description.channels, description.kernel)
        case .stateSpace(let description): (description.channels, description.kernel)
        }
    }

    /// The shape of the matrix; `nil` for a convolution alone.
    var matrix: Shape? {
        switch self {
        case .shortConvolution: nil
        case .gatedDelta(let delta): [delta.valueHeads, delta.keySize, delta.valueSize]
        case .stateSpace(let space): [space.heads, space.headSize, space.stateSize]
        }
    }

    /// K of a gated delta net, N of a state space model; `nil` for a convolution alone.
    package var stateSize: Int? {
        switch self {
        case .shortConvolution: nil
        case .gatedDelta(let delta): delta.keySize
        case .stateSpace(let space): space.stateSize
        }
    }

    /// The states of one layer. Their size does not depend on how long rows are.
    package func stateBuffers(blocks: Int) -> [BufferShape] {
        let inputs = BufferShape("convolution inputs", .float32, [blocks, convolution.channels, convolution.kernel - 1])
        let matrix = matrix.map { BufferShape("state matrix", .float32, [blocks, $0[0], $0[1], $0[2]]) }
        return [inputs] + (matrix.map { [$0] } ?? [])
    }

    func makeState(blocks: Int, _ backend: any Backend) throws -> RecurrentState {
        let tensors = try stateBuffers(blocks: blocks).map { try backend.allocate($0.dtype, $0.shape) }
        return RecurrentState(inputs: tensors[0], matrix: tensors.count > 1 ? tensors[1] : nil)
    }
}

// MARK: - Widths

extension RecurrentDescription {
    /// Columns of each projection of the input, in the order of the tree's modules.
    var projectionWidths: [Int] {
        switch self {
        case .shortConvolution(let description): [3 * description.width]
        case .gatedDelta(let delta):
            switch delta.projections {
            case .sideBySide: [delta.channels, delta.valueWidth, delta.valueHeads, delta.valueHeads]
            case .byKeyHead: [delta.channels + delta.valueWidth, 2 * delta.valueHeads]
            }
        case .stateSpace(let space): [space.width + space.channels + space.heads]
        }
    }

    /// Columns of the result, before the output projection.
    var outputWidth: Int {
        switch self {
        case .shortConvolution(let description): description.width
        case .gatedDelta(let delta): delta.valueWidth
        case .stateSpace(let space): space.width
        }
    }

    /// The result is multiplied by this before it joins the residual.
    var outputScale: Float { if case .stateSpace(let space) = self { space.outputScale } else { 1 } }

    /// Grows `sizes` to what the mixer needs.
    func widen(_ sizes: inout ActivationWidths) {
        sizes.projections = max(sizes.projections, projectionWidths.reduce(0, +))
        sizes.attended = max(sizes.attended, outputWidth)
        if case .stateSpace(let space) = self { sizes.inner = max(sizes.inner, space.channels) }
        guard case .gatedDelta(let delta) = self else { return }
        sizes.inner = max(sizes.inner, delta.channels)
        guard case .byKeyHead = delta.projections else { return }
        sizes.inner = max(sizes.inner, delta.channels + delta.valueWidth)
        // Scalars as they are projected, and in order.
        sizes.router = max(sizes.router, 4 * delta.valueHeads)
        for order in [delta.vectorOrder, delta.scalarOrder] where !sizes.orders.contains(order) { sizes.orders.append(order) }
    }
}

/// Another order of a tensor's columns: piece i of a row, `unit` columns wide, is piece `pieces[i]` of the same row.
package struct ColumnOrder: Sendable, Hashable {
    package var unit: Int
    package var pieces: [Int]

    /// Indices for `Backend/gatherRows`, for tensors of `tokens` rows that are viewed as rows of one piece.
    func indices(tokens: Int) -> [Int32] {
        (0..<tokens).flatMap { token in pieces.map { Int32(token * pieces.count + $0) } }
    }
}

extension GatedDeltaDescription {
    /// From q, k, v and z of each key head to q | k | v | z.
    var vectorOrder: ColumnOrder {
        let perGroup = valueHeads / keyHeads * valueSize
        return ColumnOrder(groups: keyHeads, widths: [keySize, keySize, perGroup, perGroup])
    }

    /// From b and a of each key head to b | a.
    var scalarOrder: ColumnOrder {
        ColumnOrder(groups: keyHeads, widths: [valueHeads / keyHeads, valueHeads / keyHeads])
    }
}

extension ColumnOrder {
    /// From parts of these widths within each group to the parts of all groups side by side.
    fileprivate init(groups: Int, widths: [Int]) {
        let unit = widths.reduce(0, ColumnOrder.greatestCommonDivisor)
        let counts = widths.map { $0 / unit }
        let total = counts.reduce(0, +)
        self.unit = unit
        pieces = counts.indices.flatMap { part in
            let first = counts[..<part].reduce(0, +)
            return (0..<groups).flatMap { group in (0..<counts[part]).map { group * total + first + $0 } }
        }
    }

    private static func greatestCommonDivisor(_ a: Int, _ b: Int) -> Int { b == 0 ? a : greatestCommonDivisor(b, a % b) }
}
