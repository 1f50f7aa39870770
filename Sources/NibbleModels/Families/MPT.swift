import NibbleCore

/// MPT: ALiBi, no biases at all, one fused projection whose output may be clamped.
///
///     nibble generate mosaicml/mpt-7b --load-in-4bit --quant-type nf4 "Once upon a time"
enum MPT {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var model = try GPTLike(
            config, "Mpt",
            .init(
                width: ["d_model", "hidden_size"], layers: ["n_layers", "num_hidden_layers"],
                heads: ["n_heads", "num_attention_heads"]))
        model.normBias = false
        model.blockList = "blocks"
        model.block = { [model] in block(model) }
        model.finalNorm = "norm_f"
        model.maximumPositions = try config.optionalPositions("max_seq_len")

        let options = try config.object("attn_config") ?? config.nested([:])
        let scale = try options.optionalDouble("softmax_scale").map { Float($0) }
        let clip = try options.optionalDouble("clip_qkv").flatMap { $0 > 0 ? Float($0) : nil }
        // The reference always descends to 2⁻⁸, whatever alibi_bias_max says.
        let slopes = Alibi.descendingSlopes(heads: model.heads, maximum: 8)
        model.forEachBlock {
            $0.attention.bias = .alibi(slopes: slopes)
            $0.attention.clip = clip
            if let scale { $0.attention.scale = scale }
            $0.feedForward = .plain(.gelu)
        }
        return try model.architecture()
    }

    @ModuleBuilder private static func block(_ model: GPTLike) -> [ModuleNode] {
        let (width, inner) = (model.width, model.inner)
        model.norm("norm_1", .attentionNorm)
        module("attn", "MptAttention", role: .selfAttention) {
            linear("Wqkv", 3 * width, width, role: .queryKeyValue)
            linear("out_proj", width, width, role: .attentionOutput)
        }
        model.norm("norm_2", .feedForwardNorm)
        module("ffn", "MptMLP", role: .feedForward) {
            linear("up_proj", inner, width, role: .up)
            plain("act", "GELU")
            linear("down_proj", width, inner, role: .down)
        }
        dropout("resid_attn_dropout")
    }
}
