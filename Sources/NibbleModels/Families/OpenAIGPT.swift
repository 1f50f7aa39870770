import NibbleCore

/// The first GPT: GPT-2's blocks with norms after the residual sums, and none at the end.
///
///     nibble generate openai-community/openai-gpt --load-in-8bit "once upon a time"
enum OpenAIGPT {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        // "gelu" has always meant the tanh approximation here.
        let config = config.value("afn")?.string == "gelu" ? config.replacing("afn", "gelu_new") : config
        var model = try GPTLike(
            config, "OpenAIGPT",
            .init(
                width: ["n_embd", "hidden_size"], layers: ["n_layer", "num_hidden_layers"],
                heads: ["n_head", "num_attention_heads"], activation: ("afn", "gelu_new")))
        let positions = try config.size("n_positions", "max_position_embeddings", default: 512)
        model.modelClass = "OpenAIGPTLMHeadModel"
        model.blockClass = "Block"
        model.keepsBlocksWhole = false
        model.tokenEmbedding = "tokens_embed"
        model.learnPositions("positions_embed", count: positions)
        model.beforeBlocks.append(dropout("drop"))
        model.buffers = [.init("position_ids", count: positions, dtype: .int64)]
        model.blockAt = { [model] in block(model, isFirst: $0 == 0, maskCount: positions * positions) }
        model.finalNorm = nil
        model.keys.ignore("attn.bias")
        return try model.architecture()
    }

    @ModuleBuilder private static func block(_ model: GPTLike, isFirst: Bool, maskCount: Int) -> [ModuleNode] {
        module(
            "attn", "Attention", role: .selfAttention, buffers: [.init("bias", count: maskCount, followsLoadDType: true)]
        ) {
            GPT2.conv1D("c_attn", 3 * model.width, model.width, .queryKeyValue)
            GPT2.conv1D("c_proj", model.width, model.width, .attentionOutput)
            dropout("attn_dropout")
            dropout("resid_dropout")
        }
        model.norm("ln_1", .attentionResidualNorm)
        module("mlp", "MLP", role: .feedForward) {
            GPT2.conv1D("c_fc", model.inner, model.width, .up)
            GPT2.conv1D("c_proj", model.width, model.inner, .down)
            // One module for all blocks.
            if isFirst { plain("act", model.activation.className) }
            dropout("dropout")
        }
        model.norm("ln_2", .feedForwardResidualNorm)
    }
}
