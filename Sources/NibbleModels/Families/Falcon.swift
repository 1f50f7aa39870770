import Foundation
import NibbleCore

/// Falcon (arXiv 2311.16867): attention and feed-forward side by side. The 7B shape has one key/value head, the new decoder
/// of 40B groups of heads and two norms, the RW models ALiBi and sublayers one after the other.
///
///     nibble generate tiiuae/falcon-7b --load-in-4bit --quant-type nf4 "Once upon a time"
enum Falcon {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let width = try config.size("hidden_size")
        let layers = try config.layerCount("num_hidden_layers", "n_layer")
        let heads = try config.headCount("num_attention_heads", "n_head")
        let headSize = try config.headSize(width: width, heads: heads)
        let inner = try config.size("ffn_hidden_size", default: 4 * width)
        let vocabulary = try config.size("vocab_size")
        let epsilon = try config.float("layer_norm_epsilon", default: 1e-5)
        let activation = try config.activation("activation", default: "gelu")
        let bias = try config.bool("bias", default: false)
        let usesAlibi = try config.bool("alibi", default: false)
        let isNew = try config.bool("new_decoder_architecture", default: false)
        let isParallel = try config.bool("parallel_attn", default: true)
        let hasTwoNorms = try config.int("num_ln_in_parallel_attn", default: isNew ? 2 : 1) == 2
        try config.require(
            isParallel || !isNew, "parallel_attn", "true with the new decoder architecture")
        let rotary = try config.rotary(headSize: headSize)

        let keyValueHeads: Int
        if isNew {
            keyValueHeads = try config.headCount("num_kv_heads", "n_head_kv", default: heads)
        } else {
            keyValueHeads = try config.bool("multi_query", default: true) ? 1 : heads
        }
        try config.require(heads % keyValueHeads == 0, "num_kv_heads", "a divisor of the \(heads) heads")
        func dense(_ name: String, _ outFeatures: Int, _ inFeatures: Int, _ role: Role) -> ModuleNode {
            linear(name, outFeatures, inFeatures, bias: bias, role: role, className: "FalconLinear", kind: .linearSubclass)
        }
        let root = module("", "FalconForCausalLM") {
            module("transformer", "FalconModel") {
                embedding("word_embeddings", vocabulary, width, role: .tokenEmbedding)
                list("h", layers) { _, name in
                    module(name, "FalconDecoderLayer", role: .block) {
                        module("self_attention", "FalconAttention", role: .selfAttention) {
                            dense("query_key_value", width + 2 * keyValueHeads * headSize, width, .queryKeyValue)
                            dense("dense", width, width, .attentionOutput)
                            dropout("attention_dropout")
                        }
                        module("mlp", "FalconMLP", role: .feedForward) {
                            dense("dense_h_to_4h", inner, width, .up)
                            plain("act", activation.className)
                            dense("dense_4h_to_h", width, inner, .down)
                        }
                        if !isParallel {
                            layerNorm("post_attention_layernorm", width, epsilon, role: .feedForwardNorm)
                            layerNorm("input_layernorm", width, epsilon, role: .attentionNorm)
                        } else if hasTwoNorms {
                            layerNorm("ln_attn", width, epsilon, role: .attentionNorm)
                            layerNorm("ln_mlp", width, epsilon, role: .feedForwardNorm)
                        } else {
                            layerNorm("input_layernorm", width, epsilon, role: .attentionNorm)
                        }
                    }
                }
                layerNorm("ln_f", width, epsilon, role: .finalNorm)
                rotaryModule("rotary_emb", "FalconRotaryEmbedding", rotated: rotary.rotated)
            }
            linear("lm_head", vocabulary, width, role: .head)
        }

        var attention = AttentionDescription(
            heads: heads, keyValueHeads: keyValueHeads, headSize: headSize,
            layout: .grouped(heads: heads, keyValueHeads: keyValueHeads, headSize: headSize))
        if usesAlibi {
            // Scores and bias are scaled together, and the slopes have bfloat16's precision.
            let scale = attention.scale
            attention.bias = .alibi(slopes: Alibi.slopes(heads: heads).map { Float(BFloat16($0)) * scale })
        } else {
            attention.rotary = 0
        }
        var layer = LayerDescription(attention: attention, feedForward: .plain(activation.function))
        layer.isParallel = isParallel
        var decoder = StackDescription(path: "transformer", width: width, layers: Array(repeating: layer, count: layers))
        decoder.rotary = [rotary]

        return ModelArchitecture(
            modelType: "falcon",
            tree: ModuleTree(
                root: root,
                tied: .tied(
                    try config.bool("tie_word_embeddings", default: true),
                    ("lm_head.weight", "transformer.word_embeddings.weight")),
                noSplitClasses: ["FalconDecoderLayer"]),
            keys: CheckpointKeys(basePrefix: "transformer"), decoder: decoder, vocabularySize: vocabulary,
            maximumPositions: try config.optionalInt("max_position_embeddings"))
    }
}
