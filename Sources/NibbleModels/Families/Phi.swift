import NibbleCore

/// Phi-1.5 and Phi-2 (arXiv 2309.05463): attention and a plain feed-forward side by side after one layer norm, half of
/// every head rotated, biases everywhere.
///
///     nibble generate microsoft/phi-2 --load-in-4bit --quant-type nf4 "def fibonacci(n):"
enum Phi {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled(["max_position_embeddings": 2048])
        var model = try GPTLike(config, "Phi", .init(epsilon: "layer_norm_eps", activation: ("hidden_act", "gelu_new")))
        model.inner = try config.size("intermediate_size")
        let keyValueHeads = try config.headCount("num_key_value_heads", default: model.heads)
        try config.require(
            model.heads % keyValueHeads == 0, "num_key_value_heads", "a divisor of the \(model.heads) heads")
        let normalizesHeads = try config.bool("qk_layernorm", default: false)
        let rotary = try config.rotary(headSize: model.headSize, .init(defaultShare: 0.5))
        model.base = "model"
        model.blockClass = "PhiDecoderLayer"
        model.tokenEmbedding = "embed_tokens"
        model.blockList = "layers"
        model.block = { [model] in block(model, keyValueHeads: keyValueHeads, normalizesHeads: normalizesHeads) }
        model.afterBlocks = [rotaryModule("rotary_emb", "PhiRotaryEmbedding", rotated: rotary.rotated), dropout("embed_dropout")]
        model.finalNorm = "final_layernorm"
        model.headBias = true
        model.isTied = false

        let attention = AttentionDescription(heads: model.heads, keyValueHeads: keyValueHeads, headSize: model.headSize)
        model.forEachBlock {
            $0.attention = attention
            $0.isParallel = true
        }
        try model.rotate(rotary)
        return try model.architecture()
    }

    @ModuleBuilder private static func block(
        _ model: GPTLike, keyValueHeads: Int, normalizesHeads: Bool
    ) -> [ModuleNode] {
        let (width, headSize) = (model.width, model.headSize)
        module("self_attn", "PhiAttention", role: .selfAttention) {
            linear("q_proj", width, width, bias: true, role: .query)
            linear("k_proj", keyValueHeads * headSize, width, bias: true, role: .key)
            linear("v_proj", keyValueHeads * headSize, width, bias: true, role: .value)
            linear("dense", width, width, bias: true, role: .attentionOutput)
            if normalizesHeads {
                layerNorm("q_layernorm", headSize, model.epsilon, role: .queryNorm)
                layerNorm("k_layernorm", headSize, model.epsilon, role: .keyNorm)
            }
        }
        module("mlp", "PhiMLP", role: .feedForward) {
            plain("activation_fn", model.activation.className)
            linear("fc1", model.inner, width, bias: true, role: .up)
            linear("fc2", width, model.inner, bias: true, role: .down)
        }
        model.norm("input_layernorm", .attentionNorm)
        dropout("resid_dropout")
    }
}

/// Phi-3, Phi-3.5 and Phi-4 (arXiv 2404.14219, 2412.08905): Llama with fused projections and, for long contexts, a rotary
/// embedding with one factor a frequency.
///
///     nibble generate microsoft/Phi-3-mini-4k-instruct --load-in-4bit --quant-type nf4 "def fibonacci(n):"
enum Phi3 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var model = try LlamaLike(
            config.filled(["rms_norm_eps": 1e-5, "max_position_embeddings": 4096]), "Phi3",
            rotary: .init(defaultShare: 1, isLongRopeOnly: true))
        try model.slide()
        model.blockEnd += [dropout("resid_attn_dropout"), dropout("resid_mlp_dropout")]
        model.feedForward = { [model] _ in model.gatedFused("mlp", "Phi3MLP") }
        let (heads, keyValueHeads) = (model.heads, model.keyValueHeads)
        let attention = module("self_attn", "Phi3Attention", role: .selfAttention) {
            linear("o_proj", model.width, heads * model.headSize, role: .attentionOutput)
            linear("qkv_proj", (heads + 2 * keyValueHeads) * model.headSize, model.width, role: .queryKeyValue)
        }
        return try model.architecture(attention: attention)
    }
}
