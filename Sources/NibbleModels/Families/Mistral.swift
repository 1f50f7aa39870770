import NibbleCore

/// Mistral (arXiv 2310.06825): Llama whose attention sees a window of the last keys.
///
///     nibble generate mistralai/Mistral-7B-v0.1 --load-in-4bit --quant-type nf4 "My favourite condiment is"
enum Mistral {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var model = try LlamaLike(
            config.filled(["num_key_value_heads": 8, "sliding_window": 4096, "max_position_embeddings": 131_072]), "Mistral")
        try model.slide()
        return try model.architecture()
    }
}

/// Ministral 8B: Mistral in which `layer_types` says which layers have the window.
///
///     nibble generate mistralai/Ministral-8B-Instruct-2410 --load-in-4bit --quant-type nf4 "My favourite condiment is"
enum Ministral {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var model = try LlamaLike(
            config.filled(["num_key_value_heads": 8, "sliding_window": 4096, "max_position_embeddings": 131_072]), "Ministral")
        try model.slideByTypes { _ in true }
        return try model.architecture()
    }
}

/// Ministral 3 (arXiv 2601.08584) and Devstral 2: Mistral with YaRN, and queries that are scaled up at far positions.
///
///     nibble generate mistralai/Ministral-3-3B-Instruct-2512 --load-in-4bit --quant-type nf4 "My favourite condiment is"
enum Ministral3 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled([
            "num_key_value_heads": 8, "head_dim": 128, "rms_norm_eps": 1e-5, "max_position_embeddings": 262_144,
            "rope_parameters": [
                "type": "yarn", "rope_theta": 1_000_000.0, "factor": 16.0, "original_max_position_embeddings": 16384,
                "beta_fast": 32.0, "beta_slow": 1.0, "mscale_all_dim": 1.0, "mscale": 1.0, "llama_4_scaling_beta": 0.1,
            ],
        ])
        var model = try LlamaLike(
            config, "Ministral3", rotary: .init(familyFields: ["llama_4_scaling_beta", "max_position_embeddings"]))
        try model.slide()
        let fields = try config.object("rope_parameters") ?? config
        if let beta = try fields.optionalDouble("llama_4_scaling_beta"), beta != 0 {
            let length = try fields.size("original_max_position_embeddings", default: 16384)
            model.forEachBlock { $0.attention.temperature = QueryTemperature(beta: Float(beta), length: length) }
        }
        return try model.architecture()
    }
}

/// Mixtral (arXiv 2401.04088): Mistral with a sparse mixture of experts, of which the best two see a token.
///
///     nibble generate mistralai/Mixtral-8x7B-v0.1 --load-in-4bit --quant-type nf4 "My favourite condiment is"
enum Mixtral {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled([
            "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "num_experts_per_tok": 2, "max_position_embeddings": 131_072,
        ])
        var model = try LlamaLike(config, "Mixtral", rotary: .init(defaultTheta: 1_000_000))
        try model.slide()
        let experts = ExpertsDescription(
            count: try config.headCount("num_local_experts", "num_experts", default: 8),
            topK: try config.headCount("num_experts_per_tok"),
            normalizesWeights: true, activation: model.activation.function, width: model.inner)
        try config.require(experts.topK <= experts.count, "num_experts_per_tok", "at most the \(experts.count) experts")
        model.feedForward = { [model] _ in model.mixture(experts) }
        model.forEachBlock { $0.feedForward = .experts(experts) }
        model.keys = .numberedExperts
        return try model.architecture()
    }
}

extension LlamaLike {
    /// A router and its experts, and `shared`, which sees every token.
    func mixture(_ experts: ExpertsDescription, shared: [ModuleNode] = [], routerFirst: Bool = true) -> ModuleNode {
        let (router, experts) = (router("gate", experts), self.experts(experts))
        return module("mlp", "\(prefix)SparseMoeBlock", role: .feedForward) {
            routerFirst ? [router, experts] : [experts, router]
            shared
        }
    }

    func router(_ name: String, _ experts: ExpertsDescription) -> ModuleNode {
        ModuleNode(
            name, "\(prefix)TopKRouter", kind: .router, role: .router,
            parameters: [.init("weight", [experts.count, width])])
    }

    func experts(_ experts: ExpertsDescription, className: String? = nil) -> ModuleNode {
        ModuleNode(
            "experts", className ?? "\(prefix)Experts", kind: .experts, role: .experts,
            parameters: [
                .init("gate_up_proj", [experts.count, 2 * experts.width, width]),
                .init("down_proj", [experts.count, width, experts.width]),
            ],
            children: [plain("act_fn", activation.className)])
    }
}
