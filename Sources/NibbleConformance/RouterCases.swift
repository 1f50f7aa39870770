internal import NibbleCore

extension OperationCases {
    /// A norm, the router and the choice in one operation: (T, X, E, k).
    static let routers: [OperationCase] = loadDTypes.flatMap { loadDType in
        [
            (1, 32, 2880, 4), (1, 8, 128, 2), (3, 33, 72, 7), (9, 5, 320, 5), (1, 6, 100, 2), (1, 200, 576, 8), (200, 8, 64, 2),
        ].flatMap { tokens, experts, width, topK in
            [true, false].map { hasNorm in
                OperationCase(
                    "route, \(topK) of \(experts) by a router [\(tokens), \(width)]\(hasNorm ? " after a norm" : "")",
                    loadDType: loadDType
                ) { try router($0, tokens, RouteVariant(tokens: tokens, experts: experts, topK: topK), width, hasNorm: hasNorm) }
            }
        }
    }

    private static func router(
        _ context: OperationContext, _ tokens: Int, _ variant: RouteVariant, _ width: Int, hasNorm: Bool
    ) throws -> OperationResult {
        let operand = try LinearOperand(
            context, .dense(context.activation), variant.experts, width, seed: 61, hasBias: true, isPrepared: true)
        let input = try context.random(.float32, [tokens, width], seed: 62, offset: 0.5)
        let weight = try context.random(.float32, [width], seed: 63, offset: 1)
        let norm = hasNorm ? Norm(kind: .rms, epsilon: 1e-5, weight: weight.tensor, bias: nil) : nil
        let scratch = try context.output(context.activation, [tokens, width])
        let logits = try context.output(.float32, [tokens, variant.experts])
        let ids = try context.integers([Int32](repeating: -1, count: tokens * variant.topK), [tokens, variant.topK])
        let weights = try context.output(.float32, [tokens, variant.topK])
        try context.backend.route(
            input.tensor, after: norm, scratch: scratch, through: LinearGroup([operand.layer]), adapters: nil,
            RouteCall(logits: logits, rule: RouterRule(normalizes: true), topK: variant.topK), ids: ids, weights: weights)

        let normalized = (0..<tokens).flatMap { token -> [Double] in
            let row = Array(input.values[token * width..<(token + 1) * width])
            return hasNorm ? PlainNorm.value(.rms, epsilon: 1e-5, row, weight: weight.values, bias: nil) : row
        }
        // The choice is that of the activations as the backend rounded them, so that rounding cannot change it.
        let activations = try context.values(of: scratch)
        let plain = PlainRouter(variant: variant, bias: nil, scales: nil)
        let products = PlainLinear(activations, operand).values
        let wanted = (0..<tokens).map {
            plain.routes(Array(products[$0 * variant.experts..<($0 + 1) * variant.experts]))
        }
        return OperationResult(got: activations, wanted: normalized, tolerance: context.tolerance(steps: 2))
            .and(
                OperationResult(
                    got: try context.integers(of: ids), exactly: wanted.flatMap { $0.map { Int32($0.expert) } })
            )
            .and(
                OperationResult(
                    got: try context.values(of: weights), wanted: wanted.flatMap { $0.map(\.weight) }, tolerance: 1e-3))
    }
}
