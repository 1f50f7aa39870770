import NibbleCore

/// GPT-2: learned positions, layer norms before each sublayer, one fused projection, weights stored transposed.
///
///     nibble generate openai-community/gpt2 --load-in-8bit "Once upon a time"
enum GPT2 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let width = try config.size("n_embd", "hidden_size")
        let layers = try config.layerCount("n_layer", "num_hidden_layers")
        let heads = try config.headCount("n_head", "num_attention_heads")
        let headSize = try config.headSize(width: width, heads: heads)
        let inner = try config.size("n_inner", default: 4 * width)
        let vocabulary = try config.size("vocab_size")
        let positions = try config.size("n_positions", "max_position_embeddings", default: 1024)
        let epsilon = try config.float("layer_norm_epsilon", default: 1e-5)
        let activation = try config.activation("activation_function", default: "gelu_new")

        func conv1D(_ name: String, _ outFeatures: Int, _ inFeatures: Int, _ role: Role) -> ModuleNode {
            linear(name, outFeatures, inFeatures, bias: true, role: role, className: "Conv1D", kind: .transposedLinear)
        }
        let root = module("", "GPT2LMHeadModel") {
            module("transformer", "GPT2Model") {
                embedding("wte", vocabulary, width, role: .tokenEmbedding)
                embedding("wpe", positions, width, role: .positionEmbedding)
                dropout("drop")
                list("h", layers) { _, name in
                    module(name, "GPT2Block", role: .block) {
                        layerNorm("ln_1", width, epsilon, role: .attentionNorm)
                        module("attn", "GPT2Attention", role: .selfAttention) {
                            conv1D("c_attn", 3 * width, width, .queryKeyValue)
                            conv1D("c_proj", width, width, .attentionOutput)
                            dropout("attn_dropout")
                            dropout("resid_dropout")
                        }
                        layerNorm("ln_2", width, epsilon, role: .feedForwardNorm)
                        module("mlp", "GPT2MLP", role: .feedForward) {
                            conv1D("c_fc", inner, width, .up)
                            conv1D("c_proj", width, inner, .down)
                            plain("act", activation.className)
                            dropout("dropout")
                        }
                    }
                }
                layerNorm("ln_f", width, epsilon, role: .finalNorm)
            }
            linear("lm_head", vocabulary, width, role: .head)
        }

        let isScaled = try config.bool("scale_attn_weights", default: true)
        let isScaledByDepth = try config.bool("scale_attn_by_inverse_layer_idx", default: false)
        let blocks = (0..<layers).map { index in
            var attention = AttentionDescription(heads: heads, headSize: headSize, scale: isScaled ? nil : 1)
            if isScaledByDepth { attention.scale /= Float(index + 1) }
            return LayerDescription(attention: attention, feedForward: .plain(activation.function))
        }
        var decoder = StackDescription(path: "transformer", width: width, layers: blocks)
        decoder.positions = .learned(offset: 0)

        return ModelArchitecture(
            modelType: "gpt2",
            tree: ModuleTree(
                root: root,
                tied: .tied(
                    try config.bool("tie_word_embeddings", default: true), ("lm_head.weight", "transformer.wte.weight")),
                noSplitClasses: ["GPT2Block"]),
            keys: CheckpointKeys(basePrefix: "transformer", ignoredSuffixes: ["attn.bias", "attn.masked_bias"]),
            decoder: decoder, vocabularySize: vocabulary, maximumPositions: positions)
    }
}
