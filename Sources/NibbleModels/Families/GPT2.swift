import NibbleCore

/// GPT-2: learned positions, layer norms before each sublayer, one fused projection, weights stored transposed.
///
///     nibble generate openai-community/gpt2 --load-in-8bit "Once upon a time"
enum GPT2 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var model = try GPTLike(
            config, "GPT2",
            .init(
                width: ["n_embd", "hidden_size"], layers: ["n_layer", "num_hidden_layers"],
                heads: ["n_head", "num_attention_heads"], inner: "n_inner"))
        model.modelClass = "GPT2LMHeadModel"
        model.learnPositions("wpe", count: try config.size("n_positions", "max_position_embeddings", default: 1024))
        model.beforeBlocks.append(dropout("drop"))
        model.block = { [model] in block(model) }
        model.keys.ignore("attn.bias", "attn.masked_bias")

        let isScaled = try config.bool("scale_attn_weights", default: true)
        let isScaledByDepth = try config.bool("scale_attn_by_inverse_layer_idx", default: false)
        for layer in model.blocks.indices {
            if !isScaled { model.blocks[layer].attention.scale = 1 }
            if isScaledByDepth { model.blocks[layer].attention.scale /= Float(layer + 1) }
        }
        return try model.architecture()
    }

    @ModuleBuilder private static func block(_ model: GPTLike) -> [ModuleNode] {
        model.norm("ln_1", .attentionNorm)
        module("attn", "GPT2Attention", role: .selfAttention) {
            conv1D("c_attn", 3 * model.width, model.width, .queryKeyValue)
            conv1D("c_proj", model.width, model.width, .attentionOutput)
            dropout("attn_dropout")
            dropout("resid_dropout")
        }
        model.norm("ln_2", .feedForwardNorm)
        module("mlp", "GPT2MLP", role: .feedForward) {
            conv1D("c_fc", model.inner, model.width, .up)
            conv1D("c_proj", model.width, model.inner, .down)
            plain("act", model.activation.className)
            dropout("dropout")
        }
    }

    static func conv1D(_ name: String, _ outFeatures: Int, _ inFeatures: Int, _ role: Role) -> ModuleNode {
        linear(name, outFeatures, inFeatures, bias: true, role: role, className: "Conv1D", kind: .transposedLinear)
    }
}
