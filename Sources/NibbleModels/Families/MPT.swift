import NibbleCore

/// MPT: ALiBi, no biases at all, one fused projection whose output may be clamped.
///
///     nibble generate mosaicml/mpt-7b --load-in-4bit --quant-type nf4 "Once upon a time"
enum MPT {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let width = try config.size("d_model", "hidden_size")
        let layers = try config.layerCount("n_layers", "num_hidden_layers")
        let heads = try config.headCount("n_heads", "num_attention_heads")
        let headSize = try config.headSize(width: width, heads: heads)
        let vocabulary = try config.size("vocab_size")
        let epsilon = try config.float("layer_norm_epsilon", default: 1e-5)
        let options = try config.object("attn_config") ?? ConfigReader([:], file: config.file)

        func norm(_ name: String, _ role: Role) -> ModuleNode { layerNorm(name, width, epsilon, bias: false, role: role) }
        let root = module("", "MptForCausalLM") {
            module("transformer", "MptModel") {
                embedding("wte", vocabulary, width, role: .tokenEmbedding)
                list("blocks", layers) { _, name in
                    module(name, "MptBlock", role: .block) {
                        norm("norm_1", .attentionNorm)
                        module("attn", "MptAttention", role: .selfAttention) {
                            linear("Wqkv", 3 * width, width, role: .queryKeyValue)
                            linear("out_proj", width, width, role: .attentionOutput)
                        }
                        norm("norm_2", .feedForwardNorm)
                        module("ffn", "MptMLP", role: .feedForward) {
                            linear("up_proj", 4 * width, width, role: .up)
                            plain("act", "GELU")
                            linear("down_proj", width, 4 * width, role: .down)
                        }
                        dropout("resid_attn_dropout")
                    }
                }
                norm("norm_f", .finalNorm)
            }
            linear("lm_head", vocabulary, width, role: .head)
        }

        var attention = AttentionDescription(
            heads: heads, headSize: headSize, scale: try options.optionalDouble("softmax_scale").map { Float($0) })
        // The reference always descends to 2⁻⁸, whatever alibi_bias_max says.
        attention.bias = .alibi(slopes: Alibi.descendingSlopes(heads: heads, maximum: 8))
        if let clip = try options.optionalDouble("clip_qkv"), clip > 0 { attention.clip = Float(clip) }
        let layer = LayerDescription(attention: attention, feedForward: .plain(.gelu))

        return ModelArchitecture(
            modelType: "mpt",
            tree: ModuleTree(
                root: root,
                tied: .tied(
                    try config.bool("tie_word_embeddings", default: true), ("lm_head.weight", "transformer.wte.weight")),
                noSplitClasses: ["MptBlock"]),
            keys: CheckpointKeys(basePrefix: "transformer"),
            decoder: StackDescription(path: "transformer", width: width, layers: Array(repeating: layer, count: layers)),
            vocabularySize: vocabulary, maximumPositions: try config.optionalInt("max_seq_len"))
    }
}
