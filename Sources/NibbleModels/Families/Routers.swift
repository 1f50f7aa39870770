import NibbleCore

// Routers and mixtures that several families share.

extension RouterDescription {
    /// DeepSeek-V3's router (arXiv 2412.19437): σ scores, a bias that only chooses, experts of the best groups, scaled weights.
    /// - Parameters:
    ///   - count: X
    ///   - bias: the path of the bias below the feed-forward.
    ///   - normalizes: whether weights are normalized where the config does not say.
    static func deepSeek(
        _ config: ConfigReader, count: Int, topK: Int, bias: String = "gate.e_score_correction_bias", normalizes: Bool = true
    ) throws -> RouterDescription {
        var router = RouterDescription(normalizes: try config.bool("norm_topk_prob", default: normalizes))
        router.scoring = .sigmoid
        router.choiceBias = bias
        router.floor = .added(1e-20)
        router.scale = try config.float("routed_scaling_factor", default: 1)
        router.groups = try .read(config, count: count, topK: topK, score: .sumOfBestTwo)
        return router
    }
}

extension RouterRule.Groups {
    /// `n_group` and `topk_group`; `nil` where there is one group.
    static func read(_ config: ConfigReader, count: Int, topK: Int, score: Score) throws -> RouterRule.Groups? {
        let groups = try config.size("n_group", default: 1)
        let chosen = try config.size("topk_group", default: 1)
        guard groups > 1 else { return nil }
        let least = score == .sumOfBestTwo ? 2 : 1
        try config.require(
            groups <= limit && count % groups == 0 && count / groups >= least, "n_group",
            "at most \(limit) groups of \(least) or more of the \(count) experts")
        try config.require(
            chosen <= groups && chosen * (count / groups) >= topK, "topk_group",
            "at most \(groups) groups, with at least \(topK) experts in them")
        return RouterRule.Groups(count: groups, chosen: chosen, score: score)
    }
}

/// The mixture of a family like DeepSeek-V3: routed experts, and experts that see every token as one.
struct DeepSeekMixture {
    /// The fields of the number of experts and of shared experts.
    var countKey = "n_routed_experts"
    var sharedKey = "n_shared_experts"
    /// Numbers where the config names none.
    var count = 128
    var topK = 8
    var shared = 1
    var width = 1408
    var normalizes = true
    /// The class of the mixture.
    var className: String
}

extension LlamaLike {
    /// The number of experts a token is sent to, at most `count`.
    func expertsPerToken(_ key: String = "num_experts_per_tok", of count: Int, default fallback: Int) throws -> Int {
        let topK = try config.headCount(key, default: fallback)
        try config.require(topK <= count, key, "at most the \(count) experts")
        return topK
    }

    /// Makes the feed-forward of the layers for which `isSparse` holds a mixture. The others stay dense.
    /// - Parameter dense: the feed-forward of the other layers, where it is not the usual one.
    mutating func mix(
        _ experts: ExpertsDescription, _ module: ModuleNode, dense: ModuleNode? = nil, where isSparse: (_ layer: Int) -> Bool
    ) {
        let sparse = (0..<layers).map(isSparse)
        let dense = dense ?? gated()
        feedForward = { sparse[$0] ? module : dense }
        for layer in blocks.indices where sparse[layer] { blocks[layer].feedForward = .experts(experts) }
    }

    /// As ``mix(_:_:where:)`` with a mixture like DeepSeek-V3's.
    mutating func mix(_ mixture: DeepSeekMixture, where isSparse: (_ layer: Int) -> Bool) throws {
        let count = try config.headCount(mixture.countKey, "num_experts", "num_local_experts", default: mixture.count)
        let topK = try expertsPerToken(of: count, default: mixture.topK)
        var experts = ExpertsDescription(
            count: count, topK: topK,
            router: try .deepSeek(config, count: count, topK: topK, normalizes: mixture.normalizes),
            activation: .product(activation.function),
            width: try config.size("moe_intermediate_size", default: mixture.width))
        let shared = try config.headCount(mixture.sharedKey, default: mixture.shared)
        experts.shared = .plain
        let router = ModuleNode(
            "gate", "\(prefix)TopkRouter", kind: .router, role: .router,
            parameters: [.init("weight", [count, width])],
            buffers: [.init("e_score_correction_bias", count: count, isPersistent: true, isRequired: true)])
        let module = module("mlp", mixture.className, role: .feedForward) {
            self.experts(experts)
            router
            gated("shared_experts", inner: shared * experts.width, role: .sharedExpert)
        }
        alwaysFloat32 = ["gate.weight"]
        mix(experts, module, where: isSparse)
    }

    /// Ignores the layers behind the last one, which predict further tokens.
    mutating func ignoreFurtherLayers() {
        keys.ignoredPrefixes += (layers..<layers + 8).map { "model.layers.\($0)" } + ["mtp", "model.mtp"]
    }
}
