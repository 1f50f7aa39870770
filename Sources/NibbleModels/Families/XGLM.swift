import NibbleCore

/// XGLM (arXiv 2112.10668): GPT-2 in BART's modules, with scaled embeddings and Fairseq's sinusoids for positions.
///
///     nibble generate facebook/xglm-564M --load-in-8bit "저녁 메뉴는"
enum XGLM {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        try config.require(!config.bool("add_cross_attention", default: false), "add_cross_attention", "false")
        // Its norms take no epsilon from the config.
        var model = try GPTLike(
            config, "XGLM",
            .init(
                width: ["d_model", "hidden_size"], layers: ["num_layers", "num_hidden_layers"],
                heads: ["attention_heads", "num_attention_heads"], epsilon: nil, activation: ("activation_function", "gelu"),
                inner: "ffn_dim"))
        let positions = try config.size("max_position_embeddings", default: 2048)
        try config.require(positions <= 1 << 20, "max_position_embeddings", "at most \(1 << 20)")
        try config.require(model.width >= 4, "d_model", "at least 4")
        model.base = "model"
        model.tokenEmbedding = "embed_tokens"
        model.embeddingClass = "XGLMScaledWordEmbedding"
        if try config.bool("scale_embedding", default: true) { model.embeddingScale = Float(model.width).squareRoot() }
        model.beforeBlocks = [
            .fairseqPositions(positions, model.width, className: "XGLMSinusoidalPositionalEmbedding")
        ]
        model.positions = .sinusoidal(positions: positions, .fairseq)
        model.maximumPositions = positions
        model.keys.ignore("embed_positions.weights")
        model.blockList = "layers"
        model.blockClass = "XGLMDecoderLayer"
        model.block = { [model] in model.fairseqBlock(attention: "XGLMAttention") }
        model.finalNorm = "layer_norm"
        return try model.architecture()
    }
}

extension ModuleNode {
    /// A module whose only content is a computed table with two rows before the first position.
    static func fairseqPositions(_ positions: Int, _ width: Int, className: String) -> ModuleNode {
        module(
            "embed_positions", className, role: .positionEmbedding,
            buffers: [.init("weights", count: (positions + 2) * width, followsLoadDType: true)])
    }
}
