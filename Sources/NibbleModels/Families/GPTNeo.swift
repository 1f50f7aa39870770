import NibbleCore

/// GPT-Neo: GPT-2 with unscaled attention, every second layer of which sees only a window.
///
///     nibble generate EleutherAI/gpt-neo-125m --load-in-8bit "Once upon a time"
enum GPTNeo {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let width = try config.size("hidden_size")
        let layers = try config.layerCount("num_layers", "num_hidden_layers")
        let heads = try config.headCount("num_heads", "num_attention_heads")
        let headSize = try config.headSize(width: width, heads: heads)
        let inner = try config.size("intermediate_size", default: 4 * width)
        let vocabulary = try config.size("vocab_size")
        let positions = try config.size("max_position_embeddings", default: 2048)
        let epsilon = try config.float("layer_norm_epsilon", default: 1e-5)
        let activation = try config.activation("activation_function", default: "gelu_new")
        let window = try config.size("window_size", default: 256)
        let isLocal = try localLayers(config, layers)

        let root = module("", "GPTNeoForCausalLM") {
            module("transformer", "GPTNeoModel") {
                embedding("wte", vocabulary, width, role: .tokenEmbedding)
                embedding("wpe", positions, width, role: .positionEmbedding)
                dropout("drop")
                list("h", layers) { _, name in
                    module(name, "GPTNeoBlock", role: .block) {
                        layerNorm("ln_1", width, epsilon, role: .attentionNorm)
                        module("attn", "GPTNeoAttention") {
                            module(
                                "attention", "GPTNeoSelfAttention", role: .selfAttention,
                                buffers: [.init("bias", count: positions * positions, dtype: .bool)]
                            ) {
                                dropout("attn_dropout")
                                dropout("resid_dropout")
                                linear("k_proj", width, width, role: .key)
                                linear("v_proj", width, width, role: .value)
                                linear("q_proj", width, width, role: .query)
                                linear("out_proj", width, width, bias: true, role: .attentionOutput)
                            }
                        }
                        layerNorm("ln_2", width, epsilon, role: .feedForwardNorm)
                        module("mlp", "GPTNeoMLP", role: .feedForward) {
                            linear("c_fc", inner, width, bias: true, role: .up)
                            linear("c_proj", width, inner, bias: true, role: .down)
                            plain("act", activation.className)
                            dropout("dropout")
                        }
                    }
                }
                layerNorm("ln_f", width, epsilon, role: .finalNorm)
            }
            linear("lm_head", vocabulary, width, role: .head)
        }

        let blocks = isLocal.map { isLocal in
            var attention = AttentionDescription(heads: heads, headSize: headSize, scale: 1)
            attention.window = isLocal ? window : nil
            return LayerDescription(attention: attention, feedForward: .plain(activation.function))
        }
        var decoder = StackDescription(path: "transformer", width: width, layers: blocks)
        decoder.positions = .learned(offset: 0)

        return ModelArchitecture(
            modelType: "gpt_neo",
            tree: ModuleTree(
                root: root,
                tied: .tied(
                    try config.bool("tie_word_embeddings", default: true), ("lm_head.weight", "transformer.wte.weight")),
                noSplitClasses: ["GPTNeoBlock"]),
            keys: CheckpointKeys(basePrefix: "transformer", ignoredSuffixes: ["attention.bias", "attention.masked_bias"]),
            decoder: decoder, vocabularySize: vocabulary, maximumPositions: positions)
    }

    /// `[[["global", "local"], 12]]`: patterns and how often each is repeated.
    private static func localLayers(_ config: ConfigReader, _ layers: Int) throws -> [Bool] {
        guard let groups = config.value("attention_types")?.array else { return (0..<layers).map { $0 % 2 == 1 } }
        var kinds = [String]()
        for group in groups {
            guard let pair = group.array, pair.count == 2, let names = pair[0].array, let count = pair[1].int else { continue }
            for _ in 0..<min(max(count, 0), layers) { kinds += names.prefix(layers + 1).compactMap(\.string) }
        }
        try config.require(
            kinds.count == layers && kinds.allSatisfy { $0 == "global" || $0 == "local" }, "attention_types",
            "patterns of \"global\" and \"local\" for \(layers) layers")
        return kinds.map { $0 == "local" }
    }
}
