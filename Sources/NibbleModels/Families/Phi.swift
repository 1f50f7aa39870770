import NibbleCore

/// Phi-1.5 and Phi-2 (arXiv 2309.05463): attention and a plain feed-forward side by side after one layer norm, half of
/// every head rotated, biases everywhere.
///
///     nibble generate microsoft/phi-2 --load-in-4bit --quant-type nf4 "def fibonacci(n):"
enum Phi {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let width = try config.size("hidden_size")
        let layers = try config.layerCount("num_hidden_layers")
        let heads = try config.headCount("num_attention_heads")
        let keyValueHeads = try config.headCount("num_key_value_heads", default: heads)
        let headSize = try config.headSize(width: width, heads: heads)
        try config.require(heads % keyValueHeads == 0, "num_key_value_heads", "a divisor of the \(heads) heads")
        let inner = try config.size("intermediate_size")
        let vocabulary = try config.size("vocab_size")
        let epsilon = try config.float("layer_norm_eps", default: 1e-5)
        let activation = try config.activation("hidden_act", default: "gelu_new")
        let normalizesHeads = try config.bool("qk_layernorm", default: false)
        let rotary = try config.rotary(headSize: headSize, partial: 0.5)

        let root = module("", "PhiForCausalLM") {
            module("model", "PhiModel") {
                embedding("embed_tokens", vocabulary, width, role: .tokenEmbedding)
                list("layers", layers) { _, name in
                    module(name, "PhiDecoderLayer", role: .block) {
                        module("self_attn", "PhiAttention", role: .selfAttention) {
                            linear("q_proj", heads * headSize, width, bias: true, role: .query)
                            linear("k_proj", keyValueHeads * headSize, width, bias: true, role: .key)
                            linear("v_proj", keyValueHeads * headSize, width, bias: true, role: .value)
                            linear("dense", width, heads * headSize, bias: true, role: .attentionOutput)
                            if normalizesHeads {
                                layerNorm("q_layernorm", headSize, epsilon, role: .queryNorm)
                                layerNorm("k_layernorm", headSize, epsilon, role: .keyNorm)
                            }
                        }
                        module("mlp", "PhiMLP", role: .feedForward) {
                            plain("activation_fn", activation.className)
                            linear("fc1", inner, width, bias: true, role: .up)
                            linear("fc2", width, inner, bias: true, role: .down)
                        }
                        layerNorm("input_layernorm", width, epsilon, role: .attentionNorm)
                        dropout("resid_dropout")
                    }
                }
                rotaryModule("rotary_emb", "PhiRotaryEmbedding", rotated: rotary.rotated)
                dropout("embed_dropout")
                layerNorm("final_layernorm", width, epsilon, role: .finalNorm)
            }
            linear("lm_head", vocabulary, width, bias: true, role: .head)
        }

        var attention = AttentionDescription(heads: heads, keyValueHeads: keyValueHeads, headSize: headSize)
        attention.rotary = 0
        var layer = LayerDescription(attention: attention, feedForward: .plain(activation.function))
        layer.isParallel = true
        var decoder = StackDescription(path: "model", width: width, layers: Array(repeating: layer, count: layers))
        decoder.rotary = [rotary]

        return ModelArchitecture(
            modelType: "phi",
            tree: ModuleTree(
                root: root,
                tied: .tied(
                    try config.bool("tie_word_embeddings", default: false), ("lm_head.weight", "model.embed_tokens.weight")),
                noSplitClasses: ["PhiDecoderLayer"]),
            keys: CheckpointKeys(basePrefix: "model"), decoder: decoder, vocabularySize: vocabulary,
            maximumPositions: try config.optionalInt("max_position_embeddings"))
    }
}

/// Phi-3, Phi-3.5 and Phi-4 (arXiv 2404.14219, 2412.08905): Llama with fused projections and, for long contexts, a rotary
/// embedding with one factor a frequency.
///
///     nibble generate microsoft/Phi-3-mini-4k-instruct --load-in-4bit --quant-type nf4 "def fibonacci(n):"
enum Phi3 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var model = try LlamaLike(config.filled(["rms_norm_eps": 1e-5]), "Phi3")
        try model.slide()
        model.blockEnd += [dropout("resid_attn_dropout"), dropout("resid_mlp_dropout")]
        model.feedForward = { [model] _ in
            module("mlp", "Phi3MLP", role: .feedForward) {
                linear("gate_up_proj", 2 * model.inner, model.width, role: .gateUp)
                linear("down_proj", model.width, model.inner, role: .down)
                plain("activation_fn", model.activation.className)
            }
        }
        let (heads, keyValueHeads) = (model.heads, model.keyValueHeads)
        let attention = module("self_attn", "Phi3Attention", role: .selfAttention) {
            linear("o_proj", model.width, heads * model.headSize, role: .attentionOutput)
            linear("qkv_proj", (heads + 2 * keyValueHeads) * model.headSize, model.width, role: .queryKeyValue)
        }
        return try model.architecture(attention: attention)
    }
}
