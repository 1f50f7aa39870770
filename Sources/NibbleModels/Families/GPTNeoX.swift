import NibbleCore

/// GPT-NeoX and Pythia (arXiv 2204.06745, 2304.01373): attention and feed-forward side by side, each after a norm of its
/// own, a part of every head rotated, queries, keys and values interleaved by head.
///
///     nibble generate EleutherAI/pythia-160m --load-in-8bit "Once upon a time"
enum GPTNeoX {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled(["max_position_embeddings": 2048])
        var model = try GPTLike(config, "GPTNeoX", .init(epsilon: "layer_norm_eps", activation: ("hidden_act", "gelu")))
        model.inner = try config.size("intermediate_size")
        let bias = try config.bool("attention_bias", default: true)
        let rotary = try config.rotary(
            headSize: model.headSize, .init(thetaKey: "rotary_emb_base", shareKey: "rotary_pct", defaultShare: 0.25))
        model.base = "gpt_neox"
        model.blockClass = "GPTNeoXLayer"
        model.tokenEmbedding = "embed_in"
        model.beforeBlocks = [dropout("emb_dropout")]
        model.blockList = "layers"
        model.block = { [model] in block(model, bias: bias) }
        model.finalNorm = "final_layer_norm"
        model.end = [rotaryModule("rotary_emb", "GPTNeoXRotaryEmbedding", rotated: rotary.rotated)]
        model.isTied = false
        // Files call the head embed_out.
        model.keys = CheckpointKeys(
            basePrefix: "", ignoredSuffixes: ["attention.bias", "attention.masked_bias"],
            fileName: { $0.hasPrefix("lm_head.") ? "embed_out." + $0.dropFirst("lm_head.".count) : $0 },
            rename: { $0.hasPrefix("embed_out.") ? "lm_head." + $0.dropFirst("embed_out.".count) : $0 })

        try model.rotate(rotary)
        let isParallel = try config.bool("use_parallel_residual", default: true)
        model.forEachBlock {
            $0.isParallel = isParallel
            $0.attention.layout = .interleaved(headSize: $0.attention.headSize)
        }
        return try model.architecture()
    }

    @ModuleBuilder private static func block(_ model: GPTLike, bias: Bool) -> [ModuleNode] {
        let width = model.width
        model.norm("input_layernorm", .attentionNorm)
        model.norm("post_attention_layernorm", .feedForwardNorm)
        dropout("post_attention_dropout")
        dropout("post_mlp_dropout")
        module("attention", "GPTNeoXAttention", role: .selfAttention) {
            linear("query_key_value", 3 * width, width, bias: bias, role: .queryKeyValue)
            linear("dense", width, width, bias: bias, role: .attentionOutput)
        }
        module("mlp", "GPTNeoXMLP", role: .feedForward) {
            linear("dense_h_to_4h", model.inner, width, bias: true, role: .up)
            linear("dense_4h_to_h", width, model.inner, bias: true, role: .down)
            plain("act", model.activation.className)
        }
    }
}
