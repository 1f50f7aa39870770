import NibbleCore

/// gpt-oss (arXiv 2508.10925): a sink in every head, windows in every other layer, biases everywhere, experts with a clamped GLU.
///
///     nibble generate openai/gpt-oss-20b --load-in-4bit --quant-type nf4 "The capital of France is"
enum GPTOSS {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled([
            "num_key_value_heads": 8, "head_dim": 64, "rms_norm_eps": 1e-5, "intermediate_size": 2880, "sliding_window": 128,
            "attention_bias": true, "max_position_embeddings": 131_072,
        ]).filled(config.value("rope_scaling") == nil ? positions : [:])
        var model = try LlamaLike(config, "GptOss", rotary: .init(defaultTheta: 150_000))
        try model.readBiases()
        try model.slideByTypes { $0 % 2 == 0 }
        model.attentionParameters = [.init("sinks", [model.heads])]
        model.forEachBlock { $0.attention.hasSinks = true }
        let count = try config.headCount("num_local_experts", "num_experts", default: 128)
        let topK = try model.expertsPerToken(of: count, default: 4)
        let experts = ExpertsDescription(
            count: count, topK: topK, router: .init(normalizes: true),
            activation: .clampedGLU(
                limit: try config.float("swiglu_limit", default: 7), alpha: try config.float("swiglu_alpha", default: 1.702)),
            width: model.inner)
        model.mix(experts, model.biasedMixture(experts)) { _ in true }
        model.keys = CheckpointKeys(basePrefix: "model", rename: numberedExperts)
        model.keepInFloat32 = ["post_attention_layernorm", "input_layernorm", "norm"]
        return try model.architecture()
    }
}

extension GPTOSS {
    /// Checkpoints that bitsandbytes quantized have lists of layers, `experts.down_projs.3.weight`, each [N, K] with gate and up
    /// alternating as in the fused parameter. The tree's name is `experts.3.down_proj.weight`.
    private static func numberedExperts(_ key: String) -> String {
        let parts = key.replacing(".mlp.router.linear.", with: ".mlp.router.").split(
            separator: ".", omittingEmptySubsequences: false)
        guard let list = parts.firstIndex(where: { $0 == "gate_up_projs" || $0 == "down_projs" }), list + 1 < parts.count else {
            return parts.joined(separator: ".")
        }
        let layer = [parts[list + 1], parts[list].dropLast()]
        return (parts[..<list] + layer + parts[(list + 2)...]).joined(separator: ".")
    }

    fileprivate static let positions: JSONObject = [
        "rope_parameters": [
            "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false,
            "original_max_position_embeddings": 4096,
        ]
    ]
}

extension LlamaLike {
    /// A router with a bias, and experts with biases whose columns of gate and up alternate.
    fileprivate func biasedMixture(_ experts: ExpertsDescription) -> ModuleNode {
        let (count, inner) = (experts.count, experts.width)
        return module("mlp", "\(prefix)MLP", role: .feedForward) {
            ModuleNode(
                "router", "\(prefix)TopKRouter", kind: .router, role: .router,
                parameters: [.init("weight", [count, width]), .init("bias", [count])])
            ModuleNode(
                "experts", "\(prefix)Experts", kind: .experts, role: .experts,
                parameters: [
                    .init("gate_up_proj", [count, width, 2 * inner]), .init("gate_up_proj_bias", [count, 2 * inner]),
                    .init("down_proj", [count, inner, width]), .init("down_proj_bias", [count, width]),
                ],
                expertsLayout: .alternatingColumns)
        }
    }
}
