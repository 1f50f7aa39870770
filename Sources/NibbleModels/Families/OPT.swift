import NibbleCore

/// OPT (arXiv 2205.01068): learned positions that begin at 2, ReLU, biases. The 350M model norms after the residual sums
/// and has embeddings narrower than its layers.
///
///     nibble generate facebook/opt-350m --load-in-8bit "Once upon a time"
enum OPT {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let width = try config.size("hidden_size")
        let embedded = try config.size("word_embed_proj_dim", default: width)
        let layers = try config.layerCount("num_hidden_layers")
        let heads = try config.headCount("num_attention_heads")
        let headSize = try config.headSize(width: width, heads: heads)
        let inner = try config.size("ffn_dim")
        let vocabulary = try config.size("vocab_size")
        let positions = try config.size("max_position_embeddings", default: 2048)
        let activation = try config.activation("activation_function", default: "relu")
        let bias = try config.bool("enable_bias", default: true)
        let isAffine = try config.bool("layer_norm_elementwise_affine", default: true)
        let normsFirst = try config.bool("do_layer_norm_before", default: true)
        let hasFinalNorm = try normsFirst && !config.bool("_remove_final_layer_norm", default: false)

        func norm(_ name: String, _ role: Role) -> ModuleNode {
            layerNorm(name, [width], 1e-5, isAffine: isAffine, role: role)
        }
        let root = module("", "OPTForCausalLM") {
            module("model", "OPTModel") {
                module("decoder", "OPTDecoder") {
                    embedding("embed_tokens", vocabulary, embedded, role: .tokenEmbedding)
                    embedding(
                        "embed_positions", positions + 2, width, role: .positionEmbedding,
                        className: "OPTLearnedPositionalEmbedding")
                    if embedded != width {
                        linear("project_out", embedded, width, role: .projectOut)
                        linear("project_in", width, embedded, role: .projectIn)
                    }
                    if hasFinalNorm { norm("final_layer_norm", .finalNorm) }
                    list("layers", layers) { _, name in
                        module(name, "OPTDecoderLayer", role: .block) {
                            module("self_attn", "OPTAttention", role: .selfAttention) {
                                linear("k_proj", width, width, bias: bias, role: .key)
                                linear("v_proj", width, width, bias: bias, role: .value)
                                linear("q_proj", width, width, bias: bias, role: .query)
                                linear("out_proj", width, width, bias: bias, role: .attentionOutput)
                            }
                            plain("activation_fn", activation.className)
                            norm("self_attn_layer_norm", normsFirst ? .attentionNorm : .attentionResidualNorm)
                            linear("fc1", inner, width, bias: bias, role: .up)
                            linear("fc2", width, inner, bias: bias, role: .down)
                            norm("final_layer_norm", normsFirst ? .feedForwardNorm : .feedForwardResidualNorm)
                        }
                    }
                }
            }
            linear("lm_head", vocabulary, embedded, role: .head)
        }

        let layer = LayerDescription(
            attention: AttentionDescription(heads: heads, headSize: headSize), feedForward: .plain(activation.function))
        var decoder = StackDescription(path: "model.decoder", width: width, layers: Array(repeating: layer, count: layers))
        decoder.positions = .learned(offset: 2)

        return ModelArchitecture(
            modelType: "opt",
            tree: ModuleTree(
                root: root,
                tied: .tied(
                    try config.bool("tie_word_embeddings", default: true),
                    ("lm_head.weight", "model.decoder.embed_tokens.weight")),
                noSplitClasses: ["OPTDecoderLayer"]),
            keys: CheckpointKeys(basePrefix: "model"), decoder: decoder, vocabularySize: vocabulary,
            maximumPositions: positions)
    }
}
