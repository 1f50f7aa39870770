import NibbleCore

/// ERNIE 4.5, dense: Llama with rotation of neighbouring pairs.
///
///     nibble generate baidu/ERNIE-4.5-0.3B-PT --load-in-4bit --quant-type nf4 "The capital of France is"
enum Ernie45 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled([
            "num_key_value_heads": 2, "head_dim": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
            "max_position_embeddings": 131_072,
        ])
        var model = try LlamaLike(config, "Ernie4_5", rotary: .init(defaultTheta: 500_000, isInterleaved: true))
        let bias = try config.bool("use_bias", default: false)
        (model.queryKeyValueBias, model.outputBias, model.feedForwardBias) = (bias, bias, bias)
        return try model.architecture()
    }
}

/// ERNIE 4.5 MoE: softmax scores with a bias that only chooses, beside experts that see every token. The first layers are dense.
///
///     nibble generate baidu/ERNIE-4.5-21B-A3B-PT --load-in-4bit --quant-type nf4 "The capital of France is"
enum Ernie45MoE {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled([
            "num_key_value_heads": 4, "rms_norm_eps": 1e-5, "intermediate_size": 12288, "tie_word_embeddings": true,
            "max_position_embeddings": 131_072,
        ])
        var model = try LlamaLike(config, "Ernie4_5_Moe", rotary: .init(defaultTheta: 500_000, isInterleaved: true))
        let bias = try config.bool("use_bias", default: false)
        // Experts never have biases, the shared ones do.
        (model.queryKeyValueBias, model.outputBias, model.feedForwardBias, model.headBias) = (bias, bias, bias, bias)
        let count = try config.headCount("moe_num_experts", "num_experts", default: 64)
        var router = RouterDescription(normalizes: true)
        router.choiceBias = "gate.moe_statics.e_score_correction_bias"
        router.floor = .atLeast(try config.float("moe_norm_min", default: 1e-12))
        var experts = ExpertsDescription(
            count: count, topK: try model.expertsPerToken("moe_k", of: count, default: 6), router: router,
            activation: .product(model.activation.function), width: try config.size("moe_intermediate_size", default: 1536))
        let shared = try config.int("moe_num_shared_experts", default: 2)
        if shared > 0 { experts.shared = .plain }
        let mixture = module("mlp", "Ernie4_5_MoeSparseMoeBlock", role: .feedForward) {
            ModuleNode(
                "gate", "Ernie4_5_MoeTopKRouter", kind: .router, role: .router,
                parameters: [.init("weight", [count, model.width])],
                children: [
                    module("moe_statics", "Ernie4_5_MoeStatics", parameters: [.init("e_score_correction_bias", [1, count])])
                ])
            model.experts(experts)
            if shared > 0 {
                model.gated("shared_experts", inner: shared * experts.width, role: .sharedExpert)
            }
        }
        model.alwaysFloat32 = ["gate.weight", "e_score_correction_bias"]
        model.mix(experts, mixture, where: try sparseLayers(config, model.layers).contains)
        model.keys.renameOnce(
            from: ".mlp.moe_statics.e_score_correction_bias", to: ".mlp.gate.moe_statics.e_score_correction_bias")
        model.ignoreFurtherLayers()
        return try model.architecture()
    }

    /// Every `moe_layer_interval`-th layer from `moe_layer_start_index` to `moe_layer_end_index`; −1 is the last.
    private static func sparseLayers(_ config: ConfigReader, _ layers: Int) throws -> Set<Int> {
        let interval = try config.size("moe_layer_interval", default: 1)
        let first = try config.int("moe_layer_start_index", default: 1)
        let last =
            try config.value("moe_layer_end_index")?.int == -1
            ? layers - 1 : config.int("moe_layer_end_index", default: layers - 1)
        return Set((0..<layers).filter { $0 >= first && $0 <= last && ($0 + 1) % interval == 0 })
    }
}
