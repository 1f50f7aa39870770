import NibbleCore

/// BLOOM (arXiv 2211.05100): ALiBi attention, a norm on the embeddings, one fused and per-head interleaved QKV projection.
///
///     nibble generate bigscience/bloom-560m --load-in-4bit "Once upon a time"
enum Bloom {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var model = try GPTLike(
            config, "Bloom",
            .init(
                width: ["hidden_size", "n_embed"], layers: ["n_layer", "num_hidden_layers"],
                heads: ["n_head", "num_attention_heads"]))
        model.tokenEmbedding = "word_embeddings"
        model.beforeBlocks = [model.norm("word_embeddings_layernorm", .embeddingNorm)]
        model.block = { [model] in block(model) }

        let slopes = Alibi.slopes(heads: model.heads)
        let residualFollowsNorm = try config.bool("apply_residual_connection_post_layernorm", default: false)
        model.forEachBlock {
            $0.attention.layout = .interleaved(headSize: $0.attention.headSize)
            $0.attention.bias = .alibi(slopes: slopes)
            $0.feedForward = .plain(.geluTanh)
            $0.residualFollowsNorm = residualFollowsNorm
        }
        return try model.architecture()
    }

    @ModuleBuilder private static func block(_ model: GPTLike) -> [ModuleNode] {
        let (width, inner) = (model.width, model.inner)
        model.norm("input_layernorm", .attentionNorm)
        module("self_attention", "BloomAttention", role: .selfAttention) {
            linear("query_key_value", 3 * width, width, bias: true, role: .queryKeyValue)
            linear("dense", width, width, bias: true, role: .attentionOutput)
            dropout("attention_dropout")
        }
        model.norm("post_attention_layernorm", .feedForwardNorm)
        module("mlp", "BloomMLP", role: .feedForward) {
            linear("dense_h_to_4h", inner, width, bias: true, role: .up)
            plain("gelu_impl", "BloomGelu")
            linear("dense_4h_to_h", width, inner, bias: true, role: .down)
        }
    }
}
