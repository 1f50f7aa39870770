import NibbleCore

/// GPT-J: attention and feed-forward side by side after one norm, neighbouring pairs of a head's first elements rotated.
///
///     nibble generate EleutherAI/gpt-j-6b --load-in-4bit --quant-type nf4 "Once upon a time"
enum GPTJ {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        try architecture(config, prefix: "GPTJ") { width, heads, headSize in
            let projections = ["k_proj": Role.key, "v_proj": .value, "q_proj": .query]
            return (
                ["k_proj", "v_proj", "q_proj"].map { linear($0, width, width, role: projections[$0]) },
                .stacked(heads: heads, keyValueHeads: heads, headSize: headSize)
            )
        }
    }

    /// - Parameter projections: an attention's query, key and value modules, and how they stand in their output.
    static func architecture(
        _ config: ConfigReader, prefix: String,
        projections: (_ width: Int, _ heads: Int, _ headSize: Int) throws -> (modules: [ModuleNode], layout: QueryKeyValueLayout)
    ) throws -> ModelArchitecture {
        let width = try config.size("n_embd", "hidden_size")
        let layers = try config.layerCount("n_layer", "num_hidden_layers")
        let heads = try config.headCount("n_head", "num_attention_heads")
        let headSize = try config.headSize(width: width, heads: heads)
        let inner = try config.size("n_inner", default: 4 * width)
        let vocabulary = try config.size("vocab_size")
        let positions = try config.size("n_positions", "max_position_embeddings", default: 2048)
        let epsilon = try config.float("layer_norm_epsilon", default: 1e-5)
        let activation = try config.activation("activation_function", default: "gelu_new")
        let rotated = try config.size("rotary_dim", default: min(64, headSize))
        try config.require(
            rotated % 2 == 0 && rotated <= headSize, "rotary_dim", "an even number of a head's \(headSize) elements")
        let (queryKeyValue, layout) = try projections(width, heads, headSize)

        let root = module("", "\(prefix)ForCausalLM") {
            module("transformer", "\(prefix)Model") {
                embedding("wte", vocabulary, width, role: .tokenEmbedding)
                dropout("drop")
                list("h", layers) { _, name in
                    module(name, "\(prefix)Block", role: .block) {
                        layerNorm("ln_1", width, epsilon, role: .attentionNorm)
                        module(
                            "attn", "\(prefix)Attention", role: .selfAttention,
                            buffers: [.init("embed_positions", count: positions * rotated)]
                        ) {
                            dropout("attn_dropout")
                            dropout("resid_dropout")
                            queryKeyValue
                            linear("out_proj", width, width, role: .attentionOutput)
                        }
                        module("mlp", "\(prefix)MLP", role: .feedForward) {
                            linear("fc_in", inner, width, bias: true, role: .up)
                            linear("fc_out", width, inner, bias: true, role: .down)
                            plain("act", activation.className)
                            dropout("dropout")
                        }
                    }
                }
                layerNorm("ln_f", width, epsilon, role: .finalNorm)
            }
            linear("lm_head", vocabulary, width, bias: true, role: .head)
        }

        var attention = AttentionDescription(heads: heads, headSize: headSize, layout: layout)
        attention.rotary = 0
        var layer = LayerDescription(attention: attention, feedForward: .plain(activation.function))
        layer.isParallel = true
        var decoder = StackDescription(path: "transformer", width: width, layers: Array(repeating: layer, count: layers))
        decoder.rotary = [RotaryDescription(rotated: rotated, theta: 10000, isInterleaved: true)]

        return ModelArchitecture(
            modelType: prefix.lowercased(),
            tree: ModuleTree(
                root: root,
                tied: .tied(
                    try config.bool("tie_word_embeddings", default: false), ("lm_head.weight", "transformer.wte.weight")),
                noSplitClasses: ["\(prefix)Block"]),
            keys: CheckpointKeys(
                basePrefix: "transformer", ignoredSuffixes: ["attn.bias", "attn.masked_bias", "attn.causal_mask"]),
            decoder: decoder, vocabularySize: vocabulary, maximumPositions: positions)
    }
}

/// CodeGen (arXiv 2203.13474): GPT-J with one fused projection, laid out for four devices: a quarter of the queries,
/// values, keys, then the next quarter.
///
///     nibble generate Salesforce/codegen-350M-mono --load-in-8bit "def fibonacci(n):"
enum CodeGen {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        try GPTJ.architecture(config, prefix: "CodeGen") { width, heads, headSize in
            try config.require(heads % 4 == 0, "n_head", "a multiple of 4")
            let quarter = width / 4
            func part(_ index: Int) -> QueryKeyValueLayout.HeadOffsets {
                .init(offset: index * quarter, stride: 3 * quarter, groupSize: heads / 4)
            }
            return (
                [linear("qkv_proj", 3 * width, width, role: .queryKeyValue)],
                QueryKeyValueLayout(query: part(0), key: part(2), value: part(1))
            )
        }
    }
}
