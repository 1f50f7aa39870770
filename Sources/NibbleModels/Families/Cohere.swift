import NibbleCore

/// Command R and R+, Aya 23: attention and feed-forward side by side after one layer norm without bias, rotation of
/// neighbouring pairs, scaled logits.
///
///     nibble generate CohereForAI/aya-23-8B --load-in-4bit --quant-type nf4 "The capital of France is"
enum Cohere {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        try model(config, "Cohere", theta: 500_000).architecture()
    }

    static func model(_ config: ConfigReader, _ prefix: String, theta: Double) throws -> LlamaLike {
        let config = config.filled(["tie_word_embeddings": true, "logit_scale": 0.0625, "max_position_embeddings": 8192])
        let epsilon = try config.float("layer_norm_eps", default: 1e-5)
        var model = try LlamaLike(config, prefix, rotary: .init(defaultTheta: theta, isInterleaved: true))
        try model.readBiases()
        let shapes: [Shape] = [[model.width], [model.heads, model.headSize], [model.keyValueHeads, model.headSize]]
        func norm(_ name: String, _ shape: Shape, _ role: Role) -> ModuleNode {
            layerNorm(name, shape, epsilon, bias: false, role: role, className: "\(prefix)LayerNorm")
        }
        model.norm = { norm($0, shapes[0], $1) }
        model.blockEnd = [norm("input_layernorm", shapes[0], .attentionNorm)]
        if try config.bool("use_qk_norm", default: false) {
            model.attentionEnd = [norm("q_norm", shapes[1], .queryNorm), norm("k_norm", shapes[2], .keyNorm)]
        }
        model.forEachBlock { $0.isParallel = true }
        model.head.scale = try config.float("logit_scale", default: 1)
        return model
    }
}

/// Command R7B and Command A, Aya Expanse's successors: Cohere with windows in three layers of four; the fourth has no
/// positions.
///
///     nibble generate CohereForAI/c4ai-command-r7b-12-2024 --load-in-4bit --quant-type nf4 "The capital of France is"
enum Cohere2 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled(["sliding_window": 4096, "use_qk_norm": false])
        var model = try Cohere.model(config, "Cohere2", theta: 10000)
        let pattern = try config.size("sliding_window_pattern", default: 4)
        let windowed = try model.slideByTypes { ($0 + 1) % pattern != 0 }
        model.removeRotary { !windowed[$0] }
        return try model.architecture()
    }
}

/// Command A+ (Cohere 2 MoE): Cohere 2 with mixtures, of which the first layers have none.
///
///     nibble generate CohereLabs/command-a-plus-05-2026 --load-in-4bit --quant-type nf4 "The capital of France is"
enum Cohere2MoE {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled(["head_dim": 128, "sliding_window": 4096, "use_qk_norm": false])
        var model = try Cohere.model(config, "Cohere2Moe", theta: 10000)
        if let epsilon = try config.optionalDouble("rms_norm_eps") {
            let width = model.width
            model.norm = { rmsNorm($0, width, Float(epsilon), role: $1, className: "Cohere2MoeRMSNorm") }
            model.blockEnd = [model.norm("input_layernorm", .attentionNorm)]
        }
        let first = try config.int("first_k_dense_replace", default: 0)
        let sparse = try config.feedForwardTypes(model.layers) { $0 < first ? "dense" : "sparse" }.map { $0 == "sparse" }
        let densePattern = try config.size("prefix_dense_sliding_window_pattern", default: 1)
        let pattern = try config.size("sliding_window_pattern", default: 4)
        // The dense layers at the beginning count on their own.
        let windowed = try model.slideByTypes { layer in
            layer < first ? (layer + 1) % densePattern != 0 : (layer - first + 1) % pattern != 0
        }
        model.removeRotary { !windowed[$0] && (sparse[$0] || densePattern != 1) }
        try mix(&model, config, sparse)
        return try model.architecture()
    }

    private static func mix(_ model: inout LlamaLike, _ config: ConfigReader, _ sparse: [Bool]) throws {
        let count = try config.headCount("num_experts", "num_local_experts", default: 8)
        let scoring = try config.string("expert_selection_fn", default: "softmax")
        try config.require(["softmax", "sigmoid"].contains(scoring), "expert_selection_fn", "softmax or sigmoid")
        let isSigmoid = scoring == "sigmoid"
        var router = RouterDescription(normalizes: try !isSigmoid || config.bool("norm_topk_prob", default: true))
        if isSigmoid { router.scoring = .sigmoid }
        let shared = try config.int("num_shared_experts", default: 0)
        let joining = try config.string("shared_expert_combination_strategy", default: "average")
        try config.require(["average", "sum"].contains(joining), "shared_expert_combination_strategy", "average or sum")
        let averages = shared > 0 && joining == "average"
        if averages { router.scale = 0.5 }
        var experts = ExpertsDescription(
            count: count, topK: try model.expertsPerToken(of: count, default: 2), router: router,
            activation: .product(model.activation.function), width: model.inner)
        if shared > 0 { experts.shared = .plain }
        if averages { experts.sharedScale = 0.5 }
        let mixture = module("mlp", "Cohere2MoeSparseMoeBlock", role: .feedForward) {
            model.router("gate", experts)
            model.experts(experts)
            if shared > 0 { model.gated("shared_experts", inner: shared * model.inner, role: .sharedExpert) }
        }
        let dense = model.gated(inner: try config.optionalSize("prefix_dense_intermediate_size"))
        model.mix(experts, mixture, dense: dense) { sparse[$0] }
    }
}
