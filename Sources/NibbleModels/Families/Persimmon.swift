import NibbleCore

/// Persimmon: GPT-NeoX with squared ReLU, layer norms on every head's query and key, and half of every head rotated.
///
///     nibble generate adept/persimmon-8b-base --load-in-4bit --quant-type nf4 "The capital of France is"
enum Persimmon {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled(["max_position_embeddings": 16384])
        var model = try GPTLike(config, "Persimmon", .init(epsilon: "layer_norm_eps", activation: ("hidden_act", "relu2")))
        model.inner = try config.size("intermediate_size")
        let normalizesHeads = try config.bool("qk_layernorm", default: true)
        let rotary = try config.rotary(headSize: model.headSize, .init(defaultShare: 0.5))
        model.base = "model"
        model.blockClass = "PersimmonDecoderLayer"
        model.tokenEmbedding = "embed_tokens"
        model.blockList = "layers"
        model.block = { [model] in block(model, normalizesHeads: normalizesHeads) }
        model.finalNorm = "final_layernorm"
        model.end = [rotaryModule("rotary_emb", "PersimmonRotaryEmbedding", rotated: rotary.rotated)]
        model.isTied = false
        try model.rotate(rotary)
        model.forEachBlock { $0.attention.layout = .interleaved(headSize: $0.attention.headSize) }
        return try model.architecture()
    }

    @ModuleBuilder private static func block(_ model: GPTLike, normalizesHeads: Bool) -> [ModuleNode] {
        let width = model.width
        module("self_attn", "PersimmonAttention", role: .selfAttention) {
            linear("query_key_value", 3 * width, width, bias: true, role: .queryKeyValue)
            linear("dense", width, width, bias: true, role: .attentionOutput)
            if normalizesHeads {
                layerNorm("q_layernorm", model.headSize, model.epsilon, role: .queryNorm)
                layerNorm("k_layernorm", model.headSize, model.epsilon, role: .keyNorm)
            }
            dropout("attention_dropout")
        }
        module("mlp", "PersimmonMLP", role: .feedForward) {
            linear("dense_h_to_4h", model.inner, width, bias: true, role: .up)
            linear("dense_4h_to_h", width, model.inner, bias: true, role: .down)
            plain("act", model.activation.className)
        }
        model.norm("input_layernorm", .attentionNorm)
        model.norm("post_attention_layernorm", .feedForwardNorm)
        dropout("dropout")
    }
}
