import NibbleCore

/// OLMoE (arXiv 2409.02060): a mixture of many small experts, and norms on all of a token's queries and keys together.
///
///     nibble generate allenai/OLMoE-1B-7B-0924 --load-in-4bit --quant-type nf4 "The capital of France is"
enum OLMoE {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled(["rms_norm_eps": 1e-5, "max_position_embeddings": 4096])
        var model = try LlamaLike(config, "Olmoe")
        try model.readBiases()
        try model.clip()
        model.normalizeTokens()
        try model.mixExperts(count: 64, topK: 8)
        return try model.architecture()
    }
}

/// FlexOlmo (arXiv 2507.07024): OLMo 2 with a mixture of experts that were trained apart.
///
///     nibble generate allenai/FlexOlmo-7x7B-1T --load-in-4bit --quant-type nf4 "The capital of France is"
enum FlexOLMo {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var model = try LlamaLike(
            config.filled(["max_position_embeddings": 4096]), "FlexOlmo", rotary: .init(defaultTheta: 500_000))
        try model.becomeOLMo2()
        try model.mixExperts(count: 7, topK: 5)
        return try model.architecture()
    }
}

extension LlamaLike {
    /// Makes the feed-forward of every layer a mixture of experts.
    /// - Parameters: the sizes where the config names none.
    fileprivate mutating func mixExperts(count: Int, topK: Int) throws {
        let experts = ExpertsDescription(
            count: try config.headCount("num_experts", "num_local_experts", default: count),
            topK: try config.headCount("num_experts_per_tok", default: topK),
            normalizesWeights: try config.bool("norm_topk_prob", default: false), activation: activation.function, width: inner)
        try config.require(experts.topK <= experts.count, "num_experts_per_tok", "at most the \(experts.count) experts")
        feedForward = { [self] _ in mixture(experts) }
        forEachBlock { $0.feedForward = .experts(experts) }
    }
}
