import NibbleCore

/// LFM2 (arXiv 2511.23404): short gated convolutions, and attention in some layers.
///
///     nibble generate LiquidAI/LFM2-350M --load-in-4bit --quant-type nf4 "The capital of France is"
enum LFM2 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var config = config.aliasing(["intermediate_size": "block_ff_dim", "tie_word_embeddings": "tie_embedding"])
        if try config.bool("block_auto_adjust_ff_dim", default: true) {
            config = config.replacing("intermediate_size", .int(try adjustedWidth(config)))
        }
        var model = try LFM2.model(config, "Lfm2")
        model.feedForward = { [model] _ in model.liquidFeedForward() }
        return try model.architecture()
    }

    /// LFM2-8B-A1B: mixtures of experts in all but the first layers.
    static func mixtureArchitecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var model = try LFM2.model(
            config.filled(["intermediate_size": 7168, "moe_intermediate_size": 1792, "num_experts": 32]), "Lfm2Moe")
        model.rotaryName = "pos_emb"
        let count = try config.headCount("num_experts", default: 32)
        var router = RouterDescription(normalizes: try config.bool("norm_topk_prob", default: true))
        router.scoring = .sigmoid
        router.floor = .added(1e-6)
        router.scale = try config.float("routed_scaling_factor", default: 1)
        if try config.bool("use_expert_bias", default: true) { router.choiceBias = "expert_bias" }
        let experts = ExpertsDescription(
            count: count, topK: try model.expertsPerToken(of: count, default: 4), router: router,
            activation: .product(model.activation.function), width: try model.config.size("moe_intermediate_size"))
        let dense = try config.int("num_dense_layers", default: 2)
        model.mix(experts, model.liquidMixture(experts), dense: model.liquidFeedForward()) { $0 >= dense }
        // Files hold each expert's three matrices.
        let names = [("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj")]
        model.keys.rename = { key in
            guard key.contains(".experts.") else { return key }
            return names.reduce(key) { $0.replacing(".\($1.0).", with: ".\($1.1).") }
        }
        return try model.architecture()
    }

    /// Two thirds of the width that the config names, rounded up to whole multiples.
    private static func adjustedWidth(_ config: ConfigReader) throws -> Int {
        let factor = try config.double("block_ffn_dim_multiplier", default: 1)
        let multiple = try config.size("block_multiple_of", default: 256)
        let width = Double(try config.size("intermediate_size", default: 12288) * 2 / 3) * factor
        try config.require(
            width >= 1 && width < Double(1 << 30), "block_ffn_dim_multiplier", "a factor that leaves a positive width")
        return (Int(width) + multiple - 1) / multiple * multiple
    }

    /// All but the feed-forward.
    static func model(_ config: ConfigReader, _ prefix: String) throws -> LlamaLike {
        let config = config.aliasing(["rms_norm_eps": "norm_eps", "rope_theta": "theta"]).filled([
            "rms_norm_eps": 1e-5, "num_key_value_heads": 8, "tie_word_embeddings": true, "max_position_embeddings": 128_000,
        ])
        var model = try LlamaLike(config, prefix, rotary: .init(defaultTheta: 1_000_000))
        let attending = Set(try config.doubles("full_attn_idxs") ?? (0..<model.layers).map(Double.init))
        let types = try config.layerTypes(model.layers, known: ["conv", "full_attention"]) {
            attending.contains(Double($0)) ? "full_attention" : "conv"
        }
        let kernel = try config.size("conv_L_cache", default: 3)
        let convolution = model.shortConvolution(kernel, bias: try config.bool("conv_bias", default: false))
        let attention = model.liquidAttention()
        model.mixer = { types[$0] == "conv" ? convolution : attention }
        for layer in model.blocks.indices where types[layer] == "conv" {
            model.blocks[layer].selfAttention = nil
            model.blocks[layer].recurrence = .shortConvolution(.init(width: model.width, kernel: kernel))
        }
        model.blockEnd = [model.norm("operator_norm", .attentionNorm), model.norm("ffn_norm", .feedForwardNorm)]
        model.finalNorm = "embedding_norm"
        model.rotaryPrecedesNorm = true
        return model
    }
}

extension LlamaLike {
    /// down(silu(gate x) ⊙ up x), under LFM2's names.
    fileprivate func liquidFeedForward() -> ModuleNode {
        module("feed_forward", "\(prefix)MLP", role: .feedForward) {
            linear("w1", inner, width, role: .gate)
            linear("w3", inner, width, role: .up)
            linear("w2", width, inner, role: .down)
        }
    }

    fileprivate func liquidMixture(_ experts: ExpertsDescription) -> ModuleNode {
        let bias = experts.router.choiceBias.map {
            ModuleNode.Buffer($0, count: experts.count, isPersistent: true, isRequired: true)
        }
        return module(
            "feed_forward", "\(prefix)SparseMoeBlock", role: .feedForward, buffers: bias.map { [$0] } ?? []
        ) {
            ModuleNode(
                "experts", "\(prefix)Experts", kind: .experts, role: .experts,
                parameters: [
                    .init("gate_up_proj", [experts.count, 2 * experts.width, width]),
                    .init("down_proj", [experts.count, width, experts.width]),
                ])
            router("gate", experts)
        }
    }

    fileprivate func liquidAttention() -> ModuleNode {
        module("self_attn", "\(prefix)Attention", role: .selfAttention) {
            linear("q_proj", heads * headSize, width, role: .query)
            linear("k_proj", keyValueHeads * headSize, width, role: .key)
            linear("v_proj", keyValueHeads * headSize, width, role: .value)
            linear("out_proj", width, heads * headSize, role: .attentionOutput)
            rmsNorm("q_layernorm", headSize, epsilon, role: .queryNorm, className: "\(prefix)RMSNorm")
            rmsNorm("k_layernorm", headSize, epsilon, role: .keyNorm, className: "\(prefix)RMSNorm")
        }
    }

    fileprivate func shortConvolution(_ kernel: Int, bias: Bool) -> ModuleNode {
        module("conv", "\(prefix)ShortConv", role: .recurrence) {
            convolution("conv", width, kernel, bias: bias)
            linear("in_proj", 3 * width, width, bias: bias, role: .mixerInput)
            linear("out_proj", width, width, bias: bias, role: .mixerOutput)
        }
    }
}
