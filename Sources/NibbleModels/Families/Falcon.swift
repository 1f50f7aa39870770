import NibbleCore

/// Falcon (arXiv 2311.16867): attention and feed-forward side by side. The 7B shape has one key/value head, the new decoder
/// of 40B groups of heads and two norms, the RW models ALiBi and sublayers one after the other.
///
///     nibble generate tiiuae/falcon-7b --load-in-4bit --quant-type nf4 "Once upon a time"
enum Falcon {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled(["max_position_embeddings": 2048])
        var model = try GPTLike(
            config, "Falcon",
            .init(
                layers: ["num_hidden_layers", "n_layer"], heads: ["num_attention_heads", "n_head"],
                activation: ("activation", "gelu"), inner: "ffn_hidden_size"))
        let shape = try Shape(config, heads: model.heads, headSize: model.headSize)
        let rotary = try config.rotary(headSize: model.headSize)
        model.blockClass = "FalconDecoderLayer"
        model.tokenEmbedding = "word_embeddings"
        model.block = { [model] in block(model, shape) }
        model.end = [rotaryModule("rotary_emb", "FalconRotaryEmbedding", rotated: rotary.rotated)]

        try model.rotate(rotary)
        let attention = try self.attention(config, model, shape)
        model.forEachBlock {
            $0.attention = attention
            $0.isParallel = shape.isParallel
        }
        return try model.architecture()
    }

    /// Which of Falcon's decoders it is.
    private struct Shape {
        let keyValueHeads: Int
        let bias, isParallel, hasTwoNorms: Bool
        /// Elements of queries, keys and values together.
        let projected: Int

        init(_ config: ConfigReader, heads: Int, headSize: Int) throws {
            bias = try config.bool("bias", default: false)
            isParallel = try config.bool("parallel_attn", default: true)
            let isNew = try config.bool("new_decoder_architecture", default: false)
            hasTwoNorms = try config.int("num_ln_in_parallel_attn", default: isNew ? 2 : 1) == 2
            try config.require(isParallel || !isNew, "parallel_attn", "true with the new decoder architecture")
            if isNew {
                keyValueHeads = try config.headCount("num_kv_heads", "n_head_kv", default: heads)
            } else {
                keyValueHeads = try config.bool("multi_query", default: true) ? 1 : heads
            }
            try config.require(heads % keyValueHeads == 0, "num_kv_heads", "a divisor of the \(heads) heads")
            projected = (heads + 2 * keyValueHeads) * headSize
        }
    }

    private static func attention(_ config: ConfigReader, _ model: GPTLike, _ shape: Shape) throws -> AttentionDescription {
        var attention = AttentionDescription(
            heads: model.heads, keyValueHeads: shape.keyValueHeads, headSize: model.headSize,
            layout: .grouped(heads: model.heads, keyValueHeads: shape.keyValueHeads, headSize: model.headSize))
        if try config.bool("alibi", default: false) {
            // Scores and bias are scaled together, and the slopes have bfloat16's precision.
            let scale = attention.scale
            attention.bias = .alibi(slopes: Alibi.slopes(heads: model.heads).map { Float(BFloat16($0)) * scale })
        } else {
            attention.rotary = 0
        }
        return attention
    }

    @ModuleBuilder private static func block(_ model: GPTLike, _ shape: Shape) -> [ModuleNode] {
        let (width, inner) = (model.width, model.inner)
        module("self_attention", "FalconAttention", role: .selfAttention) {
            dense("query_key_value", shape.projected, width, shape, .queryKeyValue)
            dense("dense", width, width, shape, .attentionOutput)
            dropout("attention_dropout")
        }
        module("mlp", "FalconMLP", role: .feedForward) {
            dense("dense_h_to_4h", inner, width, shape, .up)
            plain("act", model.activation.className)
            dense("dense_4h_to_h", width, inner, shape, .down)
        }
        if !shape.isParallel {
            model.norm("post_attention_layernorm", .feedForwardNorm)
            model.norm("input_layernorm", .attentionNorm)
        } else if shape.hasTwoNorms {
            model.norm("ln_attn", .attentionNorm)
            model.norm("ln_mlp", .feedForwardNorm)
        } else {
            model.norm("input_layernorm", .attentionNorm)
        }
    }

    private static func dense(
        _ name: String, _ outFeatures: Int, _ inFeatures: Int, _ shape: Shape, _ role: Role
    ) -> ModuleNode {
        linear(name, outFeatures, inFeatures, bias: shape.bias, role: role, className: "FalconLinear", kind: .linearSubclass)
    }
}
