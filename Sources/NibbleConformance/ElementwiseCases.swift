internal import Foundation
internal import NibbleCore

/// The plain form of pointwise functions.
enum PlainActivation {
    static func exponential(_ x: Double) -> Double { exp(x) }

    static func value(_ activation: Activation, _ x: Double) -> Double {
        switch activation {
        case .identity: x
        case .relu: max(x, 0)
        case .reluSquared: max(x, 0) * max(x, 0)
        case .gelu: 0.5 * x * (1 + erf(x / 2.0.squareRoot()))
        case .geluTanh: 0.5 * x * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
        case .quickGelu: x / (1 + exp(-1.702 * x))
        case .silu: x / (1 + exp(-x))
        case .sigmoid: 1 / (1 + exp(-x))
        case .tanh: tanh(x)
        case .softCap(let limit): Double(limit) * tanh(x / Double(limit))
        }
    }

    static func value(_ activation: GateActivation, _ gate: Double, _ up: Double) -> Double {
        switch activation {
        case .product(let activation): return value(activation, gate) * up
        case .clampedGLU(let limit, let alpha):
            let (g, u) = (min(gate, Double(limit)), min(max(up, -Double(limit)), Double(limit)))
            return (u + 1) * g / (1 + exp(-Double(alpha) * g))
        }
    }
}

extension OperationCases {
    static let loadDTypes: [DType] = [.float32, .float16, .bfloat16]
    static let activations: [Activation] = [
        .identity, .relu, .reluSquared, .gelu, .geluTanh, .quickGelu, .silu, .sigmoid, .tanh, .softCap(3),
    ]

    /// Conversion, embedding, gates, sums and copies.
    package static let elementwise: [OperationCase] =
        conversions + embeddings + gates + products + sums + gathers + blockCopies

    private static let conversions: [OperationCase] = {
        let dtypes: [DType] = [.float32, .float16, .bfloat16]
        return dtypes.flatMap { from in
            dtypes.map { to in
                OperationCase("convert \(from) to \(to) [1003]") { context in
                    // Large, small, subnormal and halfway values.
                    let corners: [Float] = [
                        0, -0.0, 1, 65504, 65519, 65520, -70000, 1e-8, 6e-8, 5.97e-8, 6.1e-5, 2049, 2051, 0x1p-133, 3e38, 0.333,
                        1.00390625, 1.01171875, -.infinity,
                    ]
                    let ordinary = HostValues.random(1003 - corners.count, seed: 1, scale: 100)
                    let source = try context.operand(corners + ordinary, from, [1003])
                    let output = try context.output(to, [1003])
                    try context.backend.convert(source.tensor, to: output)
                    let wanted = HostValues.tensor(source.values.map { Float($0) }, to, [1003])
                    return OperationResult(got: try context.bytes(of: output), exactly: HostValues.bytes(wanted))
                }
            }
        }
    }()

    private static let embeddings: [OperationCase] = loadDTypes.flatMap { loadDType in
        [(1, 64), (5, 100), (33, 257)].flatMap { tokens, width in
            [false, true].map { hasPositions in
                OperationCase(
                    "embed \(loadDType) table [\(tokens), \(width)]\(hasPositions ? " with positions" : "")",
                    loadDType: loadDType
                ) { try embedding($0, table: loadDType, tokens: tokens, width: width, hasPositions: hasPositions) }
            }
        }
    }

    private static func embedding(
        _ context: OperationContext, table dtype: DType, tokens: Int, width: Int, hasPositions: Bool
    ) throws -> OperationResult {
        let table = try context.random(dtype, [50, width], seed: 2)
        let positions = try context.random(dtype, [tokens + 4, width], seed: 3)
        let batch = RaggedBatch(queryLengths: [tokens], lengths: [tokens])
        let ids: [Int32] = (0..<tokens).map { Int32(($0 * 17 + 49) % 50) }
        let call = EmbeddingCall(
            table: table.tensor, scale: 1.5, positionTable: hasPositions ? positions.tensor : nil)
        let output = try context.output(context.activation, [tokens, width])
        try context.backend.embed(call, try batch.indices(context, tokens: ids), into: output)
        var wanted: [Double] = []
        for token in 0..<tokens {
            for column in 0..<width {
                let value = 1.5 * table.values[Int(ids[token]) * width + column]
                wanted.append(hasPositions ? value + positions.values[token * width + column] : value)
            }
        }
        return OperationResult(got: try context.values(of: output), wanted: wanted, tolerance: context.tolerance(steps: 2))
    }

    private static let gateActivations: [(String, GateActivation)] =
        activations.map { ("\($0)", .product($0)) } + [("clamped GLU", .clampedGLU(limit: 2, alpha: 1.702))]

    private static let gates: [OperationCase] = loadDTypes.flatMap { loadDType in
        gateActivations.flatMap { name, activation in
            [(1, 96), (3, 37), (6, 64)].map { tokens, width in
                OperationCase("gate \(name) [\(tokens), \(width)]", loadDType: loadDType) { context in
                    let input = try context.random(context.activation, [tokens, 2 * width], seed: 4, scale: 3)
                    let output = try context.output(context.activation, [tokens, width])
                    try context.backend.gate(input.tensor, activation, into: output)
                    var wanted: [Double] = []
                    for token in 0..<tokens {
                        for column in 0..<width {
                            let at = token * 2 * width + column
                            wanted.append(PlainActivation.value(activation, input.values[at], input.values[at + width]))
                        }
                    }
                    return OperationResult(
                        got: try context.values(of: output), wanted: wanted, tolerance: context.tolerance(steps: 2))
                }
            }
        }
    }

    private static let products: [OperationCase] = loadDTypes.flatMap { loadDType in
        [(1, 96, 96, 0), (3, 37, 150, 74), (5, 8, 40, 32)].flatMap { tokens, width, factorsWidth, first in
            [DType.float32, nil].map { dtype in
                OperationCase(
                    "multiply [\(tokens), \(width)] by columns \(first) of \(factorsWidth), \(dtype ?? loadDType)",
                    loadDType: loadDType
                ) { context in
                    let input = try context.random(context.activation, [tokens, width], seed: 8)
                    let factors = try context.random(dtype ?? context.activation, [tokens, factorsWidth], seed: 9)
                    try context.backend.multiply(input.tensor, by: factors.tensor, from: first, into: input.tensor)
                    let wanted = (0..<tokens * width).map { index in
                        input.values[index] * factors.values[index / width * factorsWidth + first + index % width]
                    }
                    return OperationResult(
                        got: try context.values(of: input.tensor), wanted: wanted, tolerance: context.tolerance(steps: 2))
                }
            }
        }
    }

    private static let sums: [OperationCase] = loadDTypes.flatMap { loadDType in
        [false, true].map { inPlace in
            OperationCase("add [3, 1001]\(inPlace ? " in place" : "")", loadDType: loadDType) { context in
                let a = try context.random(context.activation, [3, 1001], seed: 5)
                let b = try context.random(context.activation, [3, 1001], seed: 6)
                let output = inPlace ? a.tensor : try context.output(context.activation, [3, 1001])
                try context.backend.add(a.tensor, b.tensor, scale: 0.25, into: output)
                let wanted = zip(a.values, b.values).map { $0 + 0.25 * $1 }
                return OperationResult(
                    got: try context.values(of: output), wanted: wanted, tolerance: context.tolerance(steps: 2))
            }
        }
    }

    private static let gathers: [OperationCase] = loadDTypes.map { loadDType in
        OperationCase("gather rows [7, 33]", loadDType: loadDType) { context in
            let input = try context.random(context.activation, [7, 33], seed: 7)
            let indices: [Int32] = [6, 0, 0, 3, 5]
            let output = try context.output(context.activation, [5, 33])
            try context.backend.gatherRows(input.tensor, try context.integers(indices), into: output)
            let wanted = indices.flatMap { input.values[Int($0) * 33..<Int($0 + 1) * 33] }
            return OperationResult(got: try context.values(of: output), wanted: wanted, tolerance: 0)
        }
    }

    private static let copiedFormats = loadDTypes.map { KeyValueFormat.dense($0) } + quantizedFormats.prefix(1).map(\.1)

    private static let blockCopies: [OperationCase] = copiedFormats.map { format in
        OperationCase("copy blocks of a \(format) cache") { context in
            let geometry = KeyValueGeometry(heads: 3, keySize: 20, valueSize: 12, format: format)
            let operand = try CacheOperand(context, geometry, blocks: 6, seed: 8)
            let pairs: [(Int32, Int32)] = [(0, 4), (3, 1), (2, 2)]
            try context.backend.copyBlocks(
                operand.cache, pairs: try context.integers(pairs.flatMap { [$0.0, $0.1] }, [pairs.count, 2]))
            func moved(_ values: [Double]) -> [Double] {
                let size = values.count / 6
                return [0, 3, 2, 3, 0, 5].flatMap { values[$0 * size..<($0 + 1) * size] }
            }
            let keys = try operand.held(context, operand.cache.keys, size: geometry.keySize)
            let values = try operand.held(context, operand.cache.values, size: geometry.valueSize)
            return OperationResult(got: keys, wanted: moved(operand.keys), tolerance: 0)
                .and(OperationResult(got: values, wanted: moved(operand.values), tolerance: 0))
        }
    }
}
