import NibbleCore

/// SantaCoder and StarCoder (arXiv 2301.03988, 2305.06161): GPT-2 with one key/value head for all queries.
///
///     nibble generate bigcode/starcoderbase-1b --load-in-4bit --quant-type nf4 "def fibonacci(n):"
enum GPTBigCode {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var model = try GPTLike(
            config, "GPTBigCode",
            .init(
                width: ["n_embd", "hidden_size"], layers: ["n_layer", "num_hidden_layers"],
                heads: ["n_head", "num_attention_heads"], activation: ("activation_function", "gelu_pytorch_tanh"),
                inner: "n_inner"))
        try config.require(!config.bool("add_cross_attention", default: false), "add_cross_attention", "false")
        let positions = try config.size("n_positions", "max_position_embeddings", default: 1024)
        let isShared = try config.bool("multi_query", default: true)
        let isScaled = try config.bool("scale_attn_weights", default: true)
        model.buffers = [.init("bias", count: positions * positions, dtype: .bool)]
        model.learnPositions("wpe", count: positions)
        model.beforeBlocks.append(dropout("drop"))
        let keyValueHeads = isShared ? 1 : model.heads
        let attention = AttentionDescription(
            heads: model.heads, keyValueHeads: keyValueHeads, headSize: model.headSize, scale: isScaled ? nil : 1,
            layout: isShared ? nil : .interleaved(headSize: model.headSize))
        model.block = { [model] in block(model, projected: model.width + 2 * keyValueHeads * model.headSize) }
        model.forEachBlock { $0.attention = attention }
        return try model.architecture()
    }

    @ModuleBuilder private static func block(_ model: GPTLike, projected: Int) -> [ModuleNode] {
        let (width, inner) = (model.width, model.inner)
        model.norm("ln_1", .attentionNorm)
        module("attn", "GPTBigCodeAttention", role: .selfAttention) {
            linear("c_attn", projected, width, bias: true, role: .queryKeyValue)
            linear("c_proj", width, width, bias: true, role: .attentionOutput)
            dropout("resid_dropout")
        }
        model.norm("ln_2", .feedForwardNorm)
        module("mlp", "GPTBigCodeMLP", role: .feedForward) {
            linear("c_fc", inner, width, bias: true, role: .up)
            linear("c_proj", width, inner, bias: true, role: .down)
            plain("act", model.activation.className)
            dropout("dropout")
        }
    }
}
