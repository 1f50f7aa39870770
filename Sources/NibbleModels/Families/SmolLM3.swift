import NibbleCore

/// SmolLM3: Llama in which every fourth layer has no positions at all (arXiv 2501.18795).
///
///     nibble generate HuggingFaceTB/SmolLM3-3B --load-in-4bit --quant-type nf4 "The capital of France is"
enum SmolLM3 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled([
            "num_key_value_heads": 4, "tie_word_embeddings": true, "max_position_embeddings": 32768,
        ])
        var model = try LlamaLike(config, "SmolLM3", rotary: .init(defaultTheta: 2_000_000))
        try model.readBiases(feedForward: true)
        let interval = try config.size("no_rope_layer_interval", default: 4)
        // In spite of its name the list holds 1 where a layer rotates.
        let listed = try config.doubles("no_rope_layers")?.map { $0 != 0 }
        let rotates = listed ?? (0..<model.layers).map { !($0 + 1).isMultiple(of: interval) }
        try config.require(rotates.count == model.layers, "no_rope_layers", "one entry for each of \(model.layers) layers")
        for layer in model.blocks.indices where !rotates[layer] { model.blocks[layer].attention.rotary = nil }
        try model.slideByLayerTypes { layer, _ in !rotates[layer] }
        return try model.architecture()
    }
}
