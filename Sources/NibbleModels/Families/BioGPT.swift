import NibbleCore

/// BioGPT (arXiv 2210.10341): GPT-2 in BART's modules, with scaled embeddings and positions that begin at 2.
///
///     nibble generate microsoft/biogpt --load-in-8bit "COVID-19 is"
enum BioGPT {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        // Its norms take no epsilon from the config.
        var model = try GPTLike(config, "BioGpt", .init(epsilon: nil, activation: ("hidden_act", "gelu")))
        model.inner = try config.size("intermediate_size", default: 4096)
        let positions = try config.size("max_position_embeddings", default: 1024)
        model.base = "biogpt"
        model.head = "output_projection"
        model.keepsBlocksWhole = false
        model.tokenEmbedding = "embed_tokens"
        model.embeddingClass = "BioGptScaledWordEmbedding"
        if try config.bool("scale_embedding", default: true) { model.embeddingScale = Float(model.width).squareRoot() }
        model.beforeBlocks = [
            embedding(
                "embed_positions", positions + 2, model.width, role: .positionEmbedding,
                className: "BioGptLearnedPositionalEmbedding")
        ]
        model.positions = .learned(offset: 2)
        model.maximumPositions = positions
        model.blockList = "layers"
        model.blockClass = "BioGptDecoderLayer"
        model.block = { [model] in model.fairseqBlock(attention: "BioGptAttention") }
        model.finalNorm = "layer_norm"
        return try model.architecture()
    }
}

extension GPTLike {
    /// A block of the decoders that came from Fairseq: separate projections, a norm before each sublayer.
    /// - Parameter attention: the class of the attention module.
    @ModuleBuilder func fairseqBlock(attention: String) -> [ModuleNode] {
        module("self_attn", attention, role: .selfAttention) {
            linear("k_proj", width, width, bias: true, role: .key)
            linear("v_proj", width, width, bias: true, role: .value)
            linear("q_proj", width, width, bias: true, role: .query)
            linear("out_proj", width, width, bias: true, role: .attentionOutput)
        }
        plain("activation_fn", activation.className)
        norm("self_attn_layer_norm", .attentionNorm)
        linear("fc1", inner, width, bias: true, role: .up)
        linear("fc2", width, inner, bias: true, role: .down)
        norm("final_layer_norm", .feedForwardNorm)
    }
}
