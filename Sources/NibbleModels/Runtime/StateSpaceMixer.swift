import NibbleCore

/// Mamba 2, with its weights.
struct StateSpaceMixer: RecurrentMixer {
    private let description: StateSpaceDescription
    private let projections: LinearGroup
    private let convolution: ConvolutionWeights
    /// float32 [H]
    private let rate: Tensor
    private let timeBias: Tensor
    private let skip: Tensor
    private let norm: Norm?
    let output: LinearGroup

    init(_ module: LocatedModule, _ description: StateSpaceDescription, _ weights: ModelWeights) throws {
        self.description = description
        projections = try weights.group(module.first(.mixerInput))
        convolution = try ConvolutionWeights(module, weights).scaled(description, weights.backend(module.path))
        rate = try weights.parameter("A_log", of: module)
        timeBias = try weights.parameter("dt_bias", of: module)
        skip = try weights.parameter("D", of: module)
        norm = try weights.norm(module.first(.mixerNorm))
        output = try weights.group(module.first(.mixerOutput))
    }

    func mix(
        _ input: LinearInput, state: RecurrentState, _ batch: BatchIndices, _ buffers: ActivationBuffers, _ backend: any Backend
    ) throws -> Tensor {
        // z | x | B | C | dt
        let projected = buffers.projections(input.tokens, width: projections.outFeatures)
        let convolved = buffers.inner(input.tokens, width: description.channels)
        let mixed = buffers.attended(input.tokens, width: description.width)
        try backend.linear(input, projections, epilogue: .init(), into: projected)
        try backend.convolve(
            ConvolutionCall(
                input: Columns(projected, first: description.width), weight: convolution.weight, bias: convolution.bias,
                activation: description.activation, state: state), batch, into: convolved)
        try backend.stateSpace(
            StateSpaceCall(
                mixed: convolved, dt: Columns(projected, first: description.width + description.channels), rate: rate,
                timeBias: timeBias, skip: skip, heads: description.heads, headSize: description.headSize,
                groups: description.groups, stateSize: description.stateSize, timeLimits: description.timeLimits,
                timeScale: description.multipliers.time, state: state), batch, into: mixed)
        let runWidth = description.width / description.groups
        try backend.normalizeGated(
            GatedNormCall(
                input: mixed, gate: projected, gateLayout: .init(offset: 0, stride: runWidth), norm: norm, runWidth: runWidth,
                gateFirst: description.gatesFirst, gateActivation: .silu, gateScale: description.multipliers.gate), into: mixed)
        return mixed
    }
}

extension ConvolutionWeights {
    /// The weights times the factors of x, B and C, which the inputs would have to be multiplied by otherwise.
    fileprivate func scaled(_ space: StateSpaceDescription, _ backend: any Backend) throws -> ConvolutionWeights {
        let (factors, states) = (space.multipliers, space.groups * space.stateSize)
        let parts = [(factors.input, space.width), (factors.b, states), (factors.c, states)]
        guard parts.contains(where: { $0.0 != 1 }) else { return self }
        var scaled = self
        scaled.weight = try backend.allocate(weight.dtype, weight.shape)
        var first = 0
        for (factor, count) in parts {
            let rows = weight.rows(first..<first + count)
            // w + w × (factor − 1)
            try backend.add(rows, rows, scale: factor - 1, into: scaled.weight.rows(first..<first + count))
            first += count
        }
        return scaled
    }
}
