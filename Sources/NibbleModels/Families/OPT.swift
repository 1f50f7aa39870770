import NibbleCore

/// OPT (arXiv 2205.01068): learned positions that begin at 2, ReLU, biases. The 350M model norms after the residual sums
/// and has embeddings narrower than its layers.
///
///     nibble generate facebook/opt-350m --load-in-8bit "Once upon a time"
enum OPT {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var model = try GPTLike(config, "OPT", .init(epsilon: nil, activation: ("activation_function", "relu")))
        model.inner = try config.size("ffn_dim")
        model.base = "model"
        model.blockClass = "OPTDecoderLayer"
        model.tokenEmbedding = "embed_tokens"
        model.positions = .learned(offset: 2)
        let positions = try config.size("max_position_embeddings", default: 2048)
        model.maximumPositions = positions
        let layout = try Layout(config, width: model.width)
        let body = module("model", "OPTModel") { decoder(model, layout, positions: positions) }
        return try model.architecture(body: body, path: "model.decoder", headWidth: layout.embedded)
    }

    /// What differs between OPT's models.
    private struct Layout {
        /// The width of the token embedding.
        let embedded: Int
        let bias, isAffine, normsFirst, hasFinalNorm: Bool

        init(_ config: ConfigReader, width: Int) throws {
            embedded = try config.size("word_embed_proj_dim", default: width)
            bias = try config.bool("enable_bias", default: true)
            isAffine = try config.bool("layer_norm_elementwise_affine", default: true)
            normsFirst = try config.bool("do_layer_norm_before", default: true)
            hasFinalNorm = try normsFirst && !config.bool("_remove_final_layer_norm", default: false)
        }
    }

    private static func decoder(_ model: GPTLike, _ layout: Layout, positions: Int) -> ModuleNode {
        let (width, embedded) = (model.width, layout.embedded)
        return module("decoder", "OPTDecoder") {
            embedding("embed_tokens", model.vocabulary, embedded, role: .tokenEmbedding)
            embedding(
                "embed_positions", positions + 2, width, role: .positionEmbedding, className: "OPTLearnedPositionalEmbedding")
            if embedded != width {
                linear("project_out", embedded, width, role: .projectOut)
                linear("project_in", width, embedded, role: .projectIn)
            }
            if layout.hasFinalNorm { norm("final_layer_norm", model, layout, .finalNorm) }
            list("layers", model.layers) { _, name in block(name, model, layout) }
        }
    }

    private static func block(_ name: String, _ model: GPTLike, _ layout: Layout) -> ModuleNode {
        let (width, inner, bias) = (model.width, model.inner, layout.bias)
        return module(name, "OPTDecoderLayer", role: .block) {
            module("self_attn", "OPTAttention", role: .selfAttention) {
                linear("k_proj", width, width, bias: bias, role: .key)
                linear("v_proj", width, width, bias: bias, role: .value)
                linear("q_proj", width, width, bias: bias, role: .query)
                linear("out_proj", width, width, bias: bias, role: .attentionOutput)
            }
            plain("activation_fn", model.activation.className)
            norm("self_attn_layer_norm", model, layout, layout.normsFirst ? .attentionNorm : .attentionResidualNorm)
            linear("fc1", inner, width, bias: bias, role: .up)
            linear("fc2", width, inner, bias: bias, role: .down)
            norm("final_layer_norm", model, layout, layout.normsFirst ? .feedForwardNorm : .feedForwardResidualNorm)
        }
    }

    private static func norm(_ name: String, _ model: GPTLike, _ layout: Layout, _ role: Role) -> ModuleNode {
        layerNorm(name, [model.width], model.epsilon, isAffine: layout.isAffine, role: role)
    }
}
