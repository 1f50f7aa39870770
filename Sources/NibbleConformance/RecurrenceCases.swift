internal import Foundation
internal import NibbleCore

/// Calls one after another over the same states.
struct RecurrentCalls: Sendable {
    let name: String
    /// For each call: of each row its tokens, and its length afterwards.
    let calls: [(queryLengths: [Int], lengths: [Int])]

    var capacity: Int { calls.flatMap(\.lengths).max() ?? 1 }
    var batches: [RaggedBatch] {
        calls.map { RaggedBatch(queryLengths: $0.queryLengths, lengths: $0.lengths, capacity: capacity) }
    }

    init(_ name: String, _ calls: (queryLengths: [Int], lengths: [Int])...) {
        self.name = name
        self.calls = calls
    }

    /// One row whose tokens come in pieces of these sizes.
    init(_ name: String, pieces: [Int]) {
        self.name = name
        calls = pieces.indices.map { ([pieces[$0]], [pieces[...$0].reduce(0, +)]) }
    }

    static let few: [RecurrentCalls] = [
        RecurrentCalls("first token", ([1], [1])),
        RecurrentCalls("decode", ([1], [50])),
        RecurrentCalls("decode into a new block", ([1, 1], [33, 65])),
        RecurrentCalls("decode, ragged rows", ([1, 0, 1, 1], [2, 9, 32, 97])),
        RecurrentCalls("short prompt", ([2], [2])),
        RecurrentCalls("ragged prompts, some continued", ([40, 1, 0, 70, 3], [40, 80, 12, 101, 30])),
        RecurrentCalls("prompt, then decode", ([37, 5], [37, 5]), ([1, 1], [38, 6]), ([1, 1], [39, 7])),
    ]

    /// For large states, and for dtypes whose arithmetic is the same.
    static let brief: [RecurrentCalls] = [
        RecurrentCalls("decode, two rows", ([1, 1], [50, 33])),
        RecurrentCalls("prompts", ([20, 3], [40, 3])),
    ]

    /// Calls for the variant of this number.
    static func suitable(_ loadDType: DType, _ variant: Int) -> [RecurrentCalls] {
        loadDType == .float32 && variant == 0 ? few + cuts : brief
    }

    /// The same 150 tokens, however they are cut.
    static let cuts: [RecurrentCalls] = [
        RecurrentCalls("150 tokens", pieces: [150]),
        RecurrentCalls("150 tokens as 64, 64, 22", pieces: [64, 64, 22]),
        RecurrentCalls("150 tokens as 1, 99, 31, 19", pieces: [1, 99, 31, 19]),
    ]
}

/// The state that the calls of a case share, beside its plain form.
struct RecurrentOperand {
    let tensor: Tensor
    var plain: PlainStates

    init(_ context: OperationContext, _ calls: RecurrentCalls, entry: Shape, seed: UInt64) throws {
        let blocks = calls.batches.first?.blockCount ?? 1
        let operand = try context.random(.float32, Shape([blocks] + (0..<entry.rank).map { entry[$0] }), seed: seed)
        tensor = operand.tensor
        plain = PlainStates(values: operand.values, size: entry.count)
    }

    /// Compares all blocks, those of no row too.
    func result(_ context: OperationContext) throws -> OperationResult {
        OperationResult(
            got: try context.values(of: tensor), wanted: plain.values, tolerance: OperationCases.stateTolerance(context))
    }
}

extension OperationCases {
    /// Recurrent mixers: convolutions, the gated delta rule, Mamba 2, gated norms.
    package static let recurrence: [OperationCase] = convolutions + deltas + scans + gatedNorms

    /// States are float32 whatever the activations are.
    static func stateTolerance(_ context: OperationContext) -> Double { OperationContext.tolerance(.float32, steps: 2) }
    static func recurrentTolerance(_ context: OperationContext) -> Double { context.tolerance(steps: 2) }
}

// MARK: - Convolutions

struct ConvolutionVariant: Sendable {
    var channels = 70
    var taps = 4
    var hasBias = true
    var activation = Activation.silu
    /// LFM2: gate, gate and input beside each other.
    var isGated = false

    var description: String { "\(channels) channels, \(taps) taps\(hasBias ? ", bias" : "")\(isGated ? ", gates" : "")" }
}

extension OperationCases {
    private static let convolutions: [OperationCase] = {
        let variants = [
            ConvolutionVariant(),
            ConvolutionVariant(channels: 200, taps: 3, hasBias: false, activation: .identity, isGated: true),
            ConvolutionVariant(channels: 130, taps: 2), ConvolutionVariant(channels: 16, taps: 7, activation: .gelu),
            ConvolutionVariant(channels: 256, hasBias: false),
        ]
        return loadDTypes.flatMap { loadDType in
            variants.enumerated().flatMap { index, variant in
                RecurrentCalls.suitable(loadDType, index / 2).map { calls in
                    OperationCase("convolve \(variant.description), \(calls.name)", loadDType: loadDType) {
                        try convolution($0, variant, calls)
                    }
                }
            }
        }
    }()

    private static func convolution(
        _ context: OperationContext, _ variant: ConvolutionVariant, _ calls: RecurrentCalls
    ) throws -> OperationResult {
        let (channels, taps) = (variant.channels, variant.taps)
        let weight = try context.random(.float32, [channels, taps], seed: 80)
        let bias = try context.random(.float32, [channels], seed: 81)
        var state = try RecurrentOperand(context, calls, entry: [channels, taps - 1], seed: 82)
        let width = variant.isGated ? 3 * channels + 1 : channels + 5
        // Gate B, gate C, input.
        let first = variant.isGated ? 2 * channels : 3
        var result = OperationResult(got: [Int](), exactly: [])
        for (index, batch) in calls.batches.enumerated() {
            let input = try context.random(context.activation, [batch.tokenCount, width], seed: 83 + UInt64(index))
            let call = ConvolutionCall(
                input: Columns(input.tensor, first: first), weight: weight.tensor,
                bias: variant.hasBias ? bias.tensor : nil, activation: variant.activation,
                state: RecurrentState(inputs: state.tensor), inputGate: variant.isGated ? 0 : nil,
                outputGate: variant.isGated ? channels : nil)
            let output = try context.output(context.activation, [batch.tokenCount, channels])
            try context.backend.convolve(call, try batch.indices(context), into: output)
            let columns = PlainColumns(values: input.values, width: width)
            var wanted = [Double](repeating: .nan, count: batch.tokenCount * channels)
            state.plain.forEachRow(of: batch) { tokens, inputs in
                PlainRecurrence.convolve(
                    { columns.at($0, first + $1) * (variant.isGated ? columns.at($0, $1) : 1) }, tokens: tokens,
                    weight: weight.values, bias: variant.hasBias ? bias.values : nil, taps: taps, inputs: &inputs
                ) { token, channel, sum in
                    let value = PlainActivation.value(variant.activation, sum)
                    wanted[token * channels + channel] = variant.isGated ? value * columns.at(token, channels + channel) : value
                }
            }
            result = result.and(
                OperationResult(
                    got: try context.values(of: output), wanted: wanted, tolerance: recurrentTolerance(context)))
        }
        return result.and(try state.result(context))
    }
}

// MARK: - Gated norms

struct GatedNormVariant: Sendable {
    var runs = 6
    var width = 32
    var kind: Norm.Kind? = .rms
    var weights = 32
    var gateFirst = false
    var activation = Activation.silu
    /// The gate lies beside a query inside each head of twice the width.
    var isStrided = false
    var gateScale: Float = 1

    var description: String {
        "\(kind.map { "\($0)" } ?? "no norm"), \(runs) × \(width), \(weights) weights, \(activation)"
            + "\(gateFirst ? ", gate first" : "")\(isStrided ? ", strided" : "")"
    }
}

extension OperationCases {
    private static let gatedNorms: [OperationCase] = {
        let variants = [
            GatedNormVariant(), GatedNormVariant(gateFirst: true), GatedNormVariant(width: 130, weights: 130, gateScale: 0.75),
            GatedNormVariant(width: 37, weights: 37),
            GatedNormVariant(runs: 3, width: 128, weights: 384, gateFirst: true),
            GatedNormVariant(runs: 1, width: 1536, weights: 1536, gateFirst: true),
            GatedNormVariant(runs: 2, width: 700, kind: .layer, weights: 1400),
            GatedNormVariant(kind: nil, weights: 0, activation: .sigmoid, isStrided: true),
            GatedNormVariant(runs: 4, width: 256, kind: nil, weights: 0, activation: .sigmoid, isStrided: true),
        ]
        return loadDTypes.flatMap { loadDType in
            variants.flatMap { variant in
                [1, 5].flatMap { tokens in
                    [false, true].map { inPlace in
                        OperationCase(
                            "normalizeGated \(variant.description), \(tokens) tokens\(inPlace ? ", in place" : "")",
                            loadDType: loadDType
                        ) { try gatedNorm($0, variant, tokens: tokens, inPlace: inPlace) }
                    }
                }
            }
        }
    }()

    private static func gatedNorm(
        _ context: OperationContext, _ variant: GatedNormVariant, tokens: Int, inPlace: Bool
    ) throws -> OperationResult {
        let (runs, width) = (variant.runs, variant.width)
        let input = try context.random(context.activation, [tokens, runs * width], seed: 90)
        let stride = variant.isStrided ? 2 * width : width
        let gateFirst = variant.isStrided ? width : 3
        let gateWidth = variant.isStrided ? runs * stride : runs * stride + 4
        let gate = try context.random(context.activation, [tokens, gateWidth], seed: 91)
        let weight = try context.random(.float32, [max(variant.weights, 1)], seed: 92, scale: 0.2, offset: 1)
        let norm = variant.kind.map { Norm(kind: $0, epsilon: 1e-5, weight: weight.tensor) }
        let output = inPlace ? input.tensor : try context.output(context.activation, [tokens, runs * width])
        let call = GatedNormCall(
            input: input.tensor, gate: gate.tensor, gateLayout: .init(offset: gateFirst, stride: stride), norm: norm,
            runWidth: width, gateFirst: variant.gateFirst, gateActivation: variant.activation, gateScale: variant.gateScale)
        try context.backend.normalizeGated(call, into: output)
        var wanted: [Double] = []
        for token in 0..<tokens {
            for run in 0..<runs {
                let start = (token * runs + run) * width
                let factors = (0..<width).map {
                    PlainActivation.value(
                        variant.activation,
                        Double(variant.gateScale) * gate.values[token * gateWidth + gateFirst + run * stride + $0])
                }
                var x = Array(input.values[start..<start + width])
                if variant.gateFirst { x = zip(x, factors).map(*) }
                if let kind = variant.kind {
                    let mean = kind == .layer ? x.reduce(0, +) / Double(width) : 0
                    let square = x.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(width)
                    let weights = variant.weights == width ? 0 : run * width
                    x = x.indices.map { (x[$0] - mean) / (square + 1e-5).squareRoot() * weight.values[weights + $0] }
                }
                wanted += variant.gateFirst ? x : zip(x, factors).map(*)
            }
        }
        return OperationResult(
            got: try context.values(of: output), wanted: wanted, tolerance: context.tolerance(steps: 3))
    }
}
