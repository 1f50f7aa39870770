import NibbleCore

/// A recurrent token mixer of one block, with its weights.
protocol RecurrentMixer: Sendable {
    var output: LinearGroup { get }

    /// [T, E] → [T, width]: all of the mixer but the output projection.
    /// - Parameter batch: its block table is that of the states.
    func mix(
        _ input: LinearInput, state: RecurrentState, _ batch: BatchIndices, _ buffers: ActivationBuffers, _ backend: any Backend
    ) throws -> Tensor
}

extension RecurrentDescription {
    /// The mixer that `module` holds the weights of.
    func makeMixer(_ module: LocatedModule, _ weights: ModelWeights) throws -> any RecurrentMixer {
        switch self {
        case .shortConvolution(let description): try ShortConvolution(module, description, weights)
        case .gatedDelta(let description): try GatedDeltaNet(module, description, weights)
        case .stateSpace(let description): try StateSpaceMixer(module, description, weights)
        }
    }
}

/// The weights of a causal depthwise convolution.
struct ConvolutionWeights: Sendable {
    /// float32 [C, k]
    var weight: Tensor
    /// float32 [C]
    let bias: Tensor?

    /// Checkpoints hold weights as [C, 1, k].
    init(_ module: LocatedModule, _ weights: ModelWeights) throws {
        guard let convolution = module.first(.convolution) else {
            throw ModelError.missingWeight("\(Role.convolution)", module: module.path)
        }
        let stored = try weights.table(convolution)
        weight = stored.viewed(as: [stored.shape[0], stored.shape.last])
        bias = weights.tensors[convolution.path(of: "bias")]
    }
}

struct ShortConvolution: RecurrentMixer {
    private let description: ShortConvolutionDescription
    private let projections: LinearGroup
    private let convolution: ConvolutionWeights
    let output: LinearGroup

    init(_ module: LocatedModule, _ description: ShortConvolutionDescription, _ weights: ModelWeights) throws {
        self.description = description
        projections = try weights.group(module.first(.mixerInput))
        convolution = try ConvolutionWeights(module, weights)
        output = try weights.group(module.first(.mixerOutput))
    }

    func mix(
        _ input: LinearInput, state: RecurrentState, _ batch: BatchIndices, _ buffers: ActivationBuffers, _ backend: any Backend
    ) throws -> Tensor {
        let projected = buffers.projections(input.tokens, width: projections.outFeatures)
        let mixed = buffers.attended(input.tokens, width: description.width)
        try backend.linear(input, projections, epilogue: .init(adapters: buffers.adapters), into: projected)
        // B | C | x
        try backend.convolve(
            ConvolutionCall(
                input: Columns(projected, first: 2 * description.width), weight: convolution.weight, bias: convolution.bias,
                activation: .identity, state: state, inputGate: 0, outputGate: description.width), batch, into: mixed)
        return mixed
    }
}

struct GatedDeltaNet: RecurrentMixer {
    private let description: GatedDeltaDescription
    private let projections: [LinearGroup]
    private let convolution: ConvolutionWeights
    /// float32 [Hv]
    private let rate: Tensor
    private let timeBias: Tensor
    private let norm: Norm?
    let output: LinearGroup

    init(_ module: LocatedModule, _ description: GatedDeltaDescription, _ weights: ModelWeights) throws {
        self.description = description
        let inputs = try module.all(.mixerInput).map { try weights.linear($0) }
        projections =
            switch description.projections {
            case .sideBySide: [LinearGroup(inputs)]
            case .byKeyHead: inputs.map { LinearGroup([$0]) }
            }
        convolution = try ConvolutionWeights(module, weights)
        rate = try weights.parameter("A_log", of: module)
        timeBias = try weights.parameter("dt_bias", of: module)
        norm = try weights.norm(module.first(.mixerNorm))
        output = try weights.group(module.first(.mixerOutput))
    }

    /// The projections of a call, and a buffer for the convolution's result.
    private struct Projected {
        /// q | k | v | z …
        var vectors: Tensor
        var b, a: Columns
        var convolved: Tensor
    }

    func mix(
        _ input: LinearInput, state: RecurrentState, _ batch: BatchIndices, _ buffers: ActivationBuffers, _ backend: any Backend
    ) throws -> Tensor {
        let projected =
            switch description.projections {
            case .sideBySide: try projectSideBySide(input, buffers, backend)
            case .byKeyHead: try projectByKeyHead(input, buffers, backend)
            }
        try backend.convolve(
            ConvolutionCall(
                input: Columns(projected.vectors), weight: convolution.weight, bias: convolution.bias,
                activation: description.activation, state: state), batch, into: projected.convolved)
        let mixed = buffers.attended(input.tokens, width: description.valueWidth)
        try backend.gatedDelta(
            GatedDeltaCall(
                mixed: projected.convolved, a: projected.a, b: projected.b, rate: rate, timeBias: timeBias,
                keyHeads: description.keyHeads, valueHeads: description.valueHeads, keySize: description.keySize,
                valueSize: description.valueSize, state: state), batch, into: mixed)
        try backend.normalizeGated(
            GatedNormCall(
                input: mixed, gate: projected.vectors,
                gateLayout: .init(offset: description.channels, stride: description.valueSize), norm: norm,
                runWidth: description.valueSize, gateActivation: .silu), into: mixed)
        return mixed
    }

    private func projectSideBySide(
        _ input: LinearInput, _ buffers: ActivationBuffers, _ backend: any Backend
    ) throws -> Projected {
        let all = buffers.projections(input.tokens, width: projections[0].outFeatures)
        try backend.linear(input, projections[0], epilogue: .init(adapters: buffers.adapters), into: all)
        let first = description.channels + description.valueWidth
        return Projected(
            vectors: all, b: Columns(all, first: first), a: Columns(all, first: first + description.valueHeads),
            convolved: buffers.inner(input.tokens, width: description.channels))
    }

    private func projectByKeyHead(
        _ input: LinearInput, _ buffers: ActivationBuffers, _ backend: any Backend
    ) throws -> Projected {
        let (tokens, scalars) = (input.tokens, 2 * description.valueHeads)
        let input = try input.materialized(backend)
        let grouped = buffers.projections(tokens, width: projections[0].outFeatures)
        let ordered = buffers.inner(tokens, width: projections[0].outFeatures)
        try backend.linear(input, projections[0], epilogue: .init(adapters: buffers.adapters), into: grouped)
        try reorder(grouped, description.vectorOrder, into: ordered, buffers, backend)
        let both = buffers.router(2 * tokens, width: scalars)
        let (groupedScalars, orderedScalars) = (both.rows(0..<tokens), both.rows(tokens..<2 * tokens))
        try backend.linear(input, projections[1], epilogue: .init(adapters: buffers.adapters), into: groupedScalars)
        try reorder(groupedScalars, description.scalarOrder, into: orderedScalars, buffers, backend)
        return Projected(
            vectors: ordered, b: Columns(orderedScalars), a: Columns(orderedScalars, first: description.valueHeads),
            convolved: buffers.projections(tokens, width: description.channels))
    }

    private func reorder(
        _ tensor: Tensor, _ order: ColumnOrder, into result: Tensor, _ buffers: ActivationBuffers, _ backend: any Backend
    ) throws {
        let pieces = Shape(tensor.count / order.unit, order.unit)
        try backend.gatherRows(
            tensor.viewed(as: pieces), buffers.indices(order, tokens: tensor.shape[0]), into: result.viewed(as: pieces))
    }
}
