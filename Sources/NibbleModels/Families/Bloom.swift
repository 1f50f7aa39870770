import NibbleCore

/// BLOOM (arXiv 2211.05100): ALiBi attention, a norm on the embeddings, one fused and per-head interleaved QKV projection.
///
///     nibble generate bigscience/bloom-560m --load-in-4bit "Once upon a time"
enum Bloom {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let width = try config.size("hidden_size", "n_embed")
        let layers = try config.layerCount("n_layer", "num_hidden_layers")
        let heads = try config.headCount("n_head", "num_attention_heads")
        let headSize = try config.headSize(width: width, heads: heads)
        let vocabulary = try config.size("vocab_size")
        let epsilon = try config.float("layer_norm_epsilon", default: 1e-5)

        let root = module("", "BloomForCausalLM") {
            module("transformer", "BloomModel") {
                embedding("word_embeddings", vocabulary, width, role: .tokenEmbedding)
                layerNorm("word_embeddings_layernorm", width, epsilon, role: .embeddingNorm)
                list("h", layers) { _, name in block(name, width, epsilon) }
                layerNorm("ln_f", width, epsilon, role: .finalNorm)
            }
            linear("lm_head", vocabulary, width, role: .head)
        }

        var attention = AttentionDescription(heads: heads, headSize: headSize, layout: .interleaved(headSize: headSize))
        attention.bias = .alibi(slopes: Alibi.slopes(heads: heads))
        var layer = LayerDescription(attention: attention, feedForward: .plain(.geluTanh))
        layer.residualFollowsNorm = try config.bool("apply_residual_connection_post_layernorm", default: false)

        return ModelArchitecture(
            modelType: "bloom",
            tree: ModuleTree(
                root: root,
                tied: .tied(
                    try config.bool("tie_word_embeddings", default: true),
                    ("lm_head.weight", "transformer.word_embeddings.weight")),
                noSplitClasses: ["BloomBlock"]),
            keys: CheckpointKeys(basePrefix: "transformer"),
            decoder: StackDescription(path: "transformer", width: width, layers: Array(repeating: layer, count: layers)),
            vocabularySize: vocabulary)
    }

    private static func block(_ name: String, _ width: Int, _ epsilon: Float) -> ModuleNode {
        module(name, "BloomBlock", role: .block) {
            layerNorm("input_layernorm", width, epsilon, role: .attentionNorm)
            module("self_attention", "BloomAttention", role: .selfAttention) {
                linear("query_key_value", 3 * width, width, bias: true, role: .queryKeyValue)
                linear("dense", width, width, bias: true, role: .attentionOutput)
                dropout("attention_dropout")
            }
            layerNorm("post_attention_layernorm", width, epsilon, role: .feedForwardNorm)
            module("mlp", "BloomMLP", role: .feedForward) {
                linear("dense_h_to_4h", 4 * width, width, bias: true, role: .up)
                plain("gelu_impl", "BloomGelu")
                linear("dense_4h_to_h", width, 4 * width, bias: true, role: .down)
            }
        }
    }
}
