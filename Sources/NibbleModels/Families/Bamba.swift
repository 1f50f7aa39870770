import NibbleCore

/// Bamba: Mamba 2, with attention in some layers.
///
///     nibble generate ibm-ai-platform/Bamba-9B-v2 --load-in-4bit --quant-type nf4 "The capital of France is"
enum Bamba {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled([
            "rms_norm_eps": 1e-5, "num_key_value_heads": 8, "max_position_embeddings": 262_144,
        ])
        var model = try LlamaLike(config, "Bamba", rotary: .init(defaultShare: 0.5))
        try model.readBiases(feedForward: true)
        let attending = Set(try config.doubles("attn_layer_indices") ?? [])
        let types = try config.layerTypes(
            model.layers, known: ["mamba", "linear_attention", "attention", "full_attention"]
        ) { attending.contains(Double($0)) ? "full_attention" : "mamba" }
        try model.mixStateSpaces(where: types.map { $0 == "mamba" || $0 == "linear_attention" })
        model.attentionIsLast = true
        model.feedForward = { [model] _ in model.gated("feed_forward") }
        model.blockEnd = [model.norm("input_layernorm", .attentionNorm), model.norm("pre_ff_layernorm", .feedForwardNorm)]
        model.finalNorm = "final_layernorm"
        return try model.architecture()
    }
}
