internal import Foundation
internal import NibbleCore

/// One way to call `route`.
struct RouteVariant: Sendable {
    var tokens = 5
    var experts = 8
    var topK = 2
    var scoring = RouterRule.Scoring.softmax
    /// The standard deviation of the choice bias.
    var bias: Float?
    var groups: RouterRule.Groups?
    var normalizes = true
    var floor = RouterRule.Floor.added(0)
    var scale: Float = 1
    var scalesExperts = false
    /// The standard deviation of the logits.
    var spread: Float = 2
    /// Changes the logits of all tokens.
    var logits: @Sendable ([Float]) -> [Float] = { $0 }
}

extension OperationCases {
    private static let routeVariants: [(String, RouteVariant)] = [
        ("softmax", RouteVariant(normalizes: false)),
        ("softmax, normalized", RouteVariant()),
        ("one expert", RouteVariant(experts: 1, topK: 1)),
        ("all experts", RouteVariant(experts: 6, topK: 6, scale: 2.5)),
        ("7 experts of 33", RouteVariant(experts: 33, topK: 7, normalizes: false)),
        ("8 experts of 64, 300 tokens", RouteVariant(tokens: 300, experts: 64, topK: 8)),
        ("10 experts of 256", RouteVariant(tokens: 9, experts: 256, topK: 10)),
        ("40 experts of 512", RouteVariant(tokens: 3, experts: 512, topK: 40)),
        ("sigmoid", RouteVariant(scoring: .sigmoid, normalizes: false)),
        ("sigmoid, normalized", RouteVariant(experts: 31, topK: 4, scoring: .sigmoid)),
        ("sigmoid, bias", RouteVariant(experts: 256, topK: 8, scoring: .sigmoid, bias: 0.3)),
        ("softmax, bias, floor", RouteVariant(experts: 64, topK: 6, bias: 0.05, floor: .atLeast(1e-12))),
        ("softmax, floor above the sum", RouteVariant(experts: 64, topK: 2, floor: .atLeast(0.7), spread: 0.5)),
        (
            "sigmoid, bias, added floor",
            RouteVariant(experts: 32, topK: 4, scoring: .sigmoid, bias: 0.2, floor: .added(1e-6), scale: 1.3)
        ),
        (
            "sigmoid, bias, groups",
            RouteVariant(
                experts: 256, topK: 8, scoring: .sigmoid, bias: 0.2, groups: .init(count: 8, chosen: 4, score: .sumOfBestTwo),
                floor: .added(1e-20), scale: 2.5)
        ),
        (
            "softmax, groups",
            RouteVariant(
                experts: 160, topK: 6, groups: .init(count: 8, chosen: 3, score: .largest), normalizes: false, scale: 16)
        ),
        (
            "groups, one of two",
            RouteVariant(
                experts: 8, topK: 2, scoring: .sigmoid, bias: 0.5, groups: .init(count: 2, chosen: 1, score: .sumOfBestTwo))
        ),
        (
            "groups of two, all of the chosen ones",
            RouteVariant(experts: 64, topK: 10, scoring: .sigmoid, groups: .init(count: 32, chosen: 5, score: .sumOfBestTwo))
        ),
        ("one group", RouteVariant(scoring: .sigmoid, bias: 0.1, groups: .init(count: 1, chosen: 1, score: .sumOfBestTwo))),
        (
            "groups with biases below zero",
            RouteVariant(
                experts: 16, topK: 3, scoring: .sigmoid, bias: 3, groups: .init(count: 4, chosen: 2, score: .sumOfBestTwo))
        ),
        ("scales of experts", RouteVariant(experts: 128, topK: 8, scale: 0.5, scalesExperts: true)),
        ("ties", RouteVariant(experts: 12, topK: 5, logits: { $0.map { ($0 * 2).rounded() / 2 } })),
        ("ties, sigmoid", RouteVariant(experts: 12, topK: 5, scoring: .sigmoid, logits: { $0.map { $0.rounded() } })),
        (
            "ties of groups",
            RouteVariant(
                experts: 12, topK: 4, scoring: .sigmoid, groups: .init(count: 4, chosen: 2, score: .largest),
                logits: { $0.map { _ in 0.25 } })
        ),
        // σ is 1 for all of them in float32: the logits decide.
        ("saturated sigmoid", RouteVariant(scoring: .sigmoid, logits: { $0.map { 40 + $0 } })),
        ("large logits", RouteVariant(logits: { $0.map { $0 * 1000 } })),
        ("logits of −∞", RouteVariant(topK: 3, logits: { $0.enumerated().map { $0 % 3 == 0 ? $1 : -.infinity } })),
    ]

    package static let routes: [OperationCase] =
        routeVariants.map { name, variant in
            OperationCase("route, \(name)") { try route($0, variant) }
        } + [
            // NaN must stay visible: the expert is chosen, and its weight is NaN.
            OperationCase("route, NaN, softmax") { try routeNaN($0, .softmax) },
            OperationCase("route, NaN, sigmoid") { try routeNaN($0, .sigmoid) },
        ] + routers

    private static func route(_ context: OperationContext, _ variant: RouteVariant) throws -> OperationResult {
        let (tokens, experts) = (variant.tokens, variant.experts)
        let random = HostValues.random(tokens * experts, seed: 41, scale: variant.spread)
        let logits = try context.operand(variant.logits(random), .float32, [tokens, experts])
        let bias = try variant.bias.map { try context.random(.float32, [experts], seed: 42, scale: $0) }
        let scales = variant.scalesExperts ? try context.random(.float32, [experts], seed: 43, scale: 0.3, offset: 1) : nil
        let rule = RouterRule(
            scoring: variant.scoring, choiceBias: bias?.tensor, groups: variant.groups, normalizes: variant.normalizes,
            floor: variant.floor, scale: variant.scale, expertScale: scales?.tensor)
        let (ids, weights) = try chosen(context, logits.tensor, rule, topK: variant.topK)
        let plain = PlainRouter(variant: variant, bias: bias?.values, scales: scales?.values)
        let wanted = (0..<tokens).map { plain.routes(Array(logits.values[$0 * experts..<($0 + 1) * experts])) }
        return OperationResult(got: ids, exactly: wanted.flatMap { $0.map { Int32($0.expert) } })
            .and(OperationResult(got: weights, wanted: wanted.flatMap { $0.map(\.weight) }, tolerance: 1e-5))
    }

    private static func chosen(
        _ context: OperationContext, _ logits: Tensor, _ rule: RouterRule, topK: Int
    ) throws -> (ids: [Int32], weights: [Double]) {
        let tokens = logits.shape[0]
        let ids = try context.integers([Int32](repeating: -1, count: tokens * topK), [tokens, topK])
        let weights = try context.output(.float32, [tokens, topK])
        try context.backend.route(RouteCall(logits: logits, rule: rule, topK: topK), ids: ids, weights: weights)
        return (try context.integers(of: ids), try context.values(of: weights))
    }

    private static func routeNaN(_ context: OperationContext, _ scoring: RouterRule.Scoring) throws -> OperationResult {
        let logits = try context.operand([0.5, 2, .nan, 1, 3, 0, 0, 0], .float32, [2, 4])
        let (ids, weights) = try chosen(context, logits.tensor, RouterRule(scoring: scoring, normalizes: false), topK: 2)
        let sees = weights.map(\.isNaN)
        return OperationResult(got: ids, exactly: [2, 1, 0, 1])
            .and(OperationResult(got: sees, exactly: [true, scoring == .softmax, false, false]))
    }
}

/// The plain form of routing: all scores, then a sort.
struct PlainRouter {
    let variant: RouteVariant
    let bias: [Double]?
    let scales: [Double]?

    func routes(_ logits: [Double]) -> [(expert: Int, weight: Double)] {
        let scores = scores(logits)
        let usesLogits = bias == nil && variant.groups == nil
        let choice = usesLogits ? logits : scores.indices.map { scores[$0] + (bias?[$0] ?? 0) }
        let eligible = eligible(choice)
        let order = PlainRouter.order(choice).filter(eligible.contains).prefix(variant.topK)
        let sum = order.reduce(0) { $0 + scores[$1] }
        let divisor =
            switch variant.floor {
            case .added(let epsilon): sum + Double(epsilon)
            case .atLeast(let epsilon): max(sum, Double(epsilon))
            }
        return order.map { expert in
            let weight = scores[expert] / (variant.normalizes ? divisor : 1)
            return (expert, weight * Double(variant.scale) * (scales?[expert] ?? 1))
        }
    }

    private func scores(_ logits: [Double]) -> [Double] {
        switch variant.scoring {
        case .sigmoid: return logits.map { 1 / (1 + exp(-$0)) }
        case .softmax:
            let largest = logits.max() ?? 0
            let powers = logits.map { exp($0 - largest) }
            let total = powers.reduce(0, +)
            return powers.map { $0 / total }
        }
    }

    /// The experts of the best groups.
    private func eligible(_ choice: [Double]) -> Set<Int> {
        guard let groups = variant.groups else { return Set(choice.indices) }
        let size = choice.count / groups.count
        let best = (0..<groups.count).map { group in
            choice[group * size..<(group + 1) * size].sorted(by: >).prefix(groups.score == .largest ? 1 : 2).reduce(0, +)
        }
        return Set(PlainRouter.order(best).prefix(groups.chosen).flatMap { $0 * size..<($0 + 1) * size })
    }

    /// Indices by value, the largest first, the lower one among equals.
    private static func order(_ values: [Double]) -> [Int] {
        values.indices.sorted { (values[$1], $0) < (values[$0], $1) }
    }
}
