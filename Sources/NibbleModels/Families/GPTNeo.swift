import NibbleCore

/// GPT-Neo: GPT-2 with unscaled attention, every second layer of which sees only a window.
///
///     nibble generate EleutherAI/gpt-neo-125m --load-in-8bit "Once upon a time"
enum GPTNeo {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var model = try GPTLike(
            config, "GPTNeo",
            .init(
                layers: ["num_layers", "num_hidden_layers"], heads: ["num_heads", "num_attention_heads"],
                inner: "intermediate_size"))
        let positions = try config.size("max_position_embeddings", default: 2048)
        model.learnPositions("wpe", count: positions)
        model.beforeBlocks.append(dropout("drop"))
        model.block = { [model] in block(model, positions: positions) }
        model.keys.ignore("attention.bias", "attention.masked_bias")

        let window = try config.size("window_size", default: 256)
        for (layer, isLocal) in try localLayers(config, model.layers).enumerated() {
            model.blocks[layer].attention.scale = 1
            model.blocks[layer].attention.window = isLocal ? window : nil
        }
        return try model.architecture()
    }

    @ModuleBuilder private static func block(_ model: GPTLike, positions: Int) -> [ModuleNode] {
        let width = model.width
        model.norm("ln_1", .attentionNorm)
        module("attn", "GPTNeoAttention") {
            module(
                "attention", "GPTNeoSelfAttention", role: .selfAttention,
                buffers: [.init("bias", count: positions * positions, dtype: .bool)]
            ) {
                dropout("attn_dropout")
                dropout("resid_dropout")
                linear("k_proj", width, width, role: .key)
                linear("v_proj", width, width, role: .value)
                linear("q_proj", width, width, role: .query)
                linear("out_proj", width, width, bias: true, role: .attentionOutput)
            }
        }
        model.norm("ln_2", .feedForwardNorm)
        module("mlp", "GPTNeoMLP", role: .feedForward) {
            linear("c_fc", model.inner, width, bias: true, role: .up)
            linear("c_proj", width, model.inner, bias: true, role: .down)
            plain("act", model.activation.className)
            dropout("dropout")
        }
    }

    /// `[[["global", "local"], 12]]`: patterns and how often each is repeated.
    private static func localLayers(_ config: ConfigReader, _ layers: Int) throws -> [Bool] {
        guard let groups = config.value("attention_types")?.array else { return (0..<layers).map { $0 % 2 == 1 } }
        var kinds = [String]()
        for group in groups {
            guard let pair = group.array, pair.count == 2, let names = pair[0].array, let count = pair[1].int else { continue }
            for _ in 0..<min(max(count, 0), layers) { kinds += names.prefix(layers + 1).compactMap(\.string) }
        }
        try config.require(
            kinds.count == layers && kinds.allSatisfy { $0 == "global" || $0 == "local" }, "attention_types",
            "patterns of \"global\" and \"local\" for \(layers) layers")
        return kinds.map { $0 == "local" }
    }
}
