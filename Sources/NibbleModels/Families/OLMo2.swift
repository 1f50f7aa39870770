import NibbleCore

/// OLMo 2 (arXiv 2501.00656): norms on what a sublayer gives instead of what it gets, and on all of a token's queries and
/// keys together.
///
///     nibble generate allenai/OLMo-2-0425-1B --load-in-4bit --quant-type nf4 "The capital of France is"
enum OLMo2 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled(["rms_norm_eps": 1e-5, "max_position_embeddings": 2048])
        var model = try LlamaLike(config, "Olmo2")
        try model.becomeOLMo2()
        return try model.architecture()
    }
}

/// OLMo 3 (arXiv 2512.13961): OLMo 2 with windows in three layers of four, and a stretched rotary embedding in the others.
///
///     nibble generate allenai/Olmo-3-7B-Instruct --load-in-4bit --quant-type nf4 "The capital of France is"
enum OLMo3 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled(["rms_norm_eps": 1e-5, "sliding_window": 4096, "max_position_embeddings": 2048])
        var model = try LlamaLike(config, "Olmo3", rotary: nil)
        try model.becomeOLMo2()
        let windowed = try model.slideByTypes { ($0 + 1) % 4 != 0 }
        let types = [(true, "sliding_attention"), (false, "full_attention")].filter { windowed.contains($0.0) }
        model.rotaryLayerTypes = types.map(\.1).sorted()
        model.rotary = try types.map { try rotary(config, headSize: model.headSize, layerType: $0.1) }
        for layer in model.blocks.indices {
            model.blocks[layer].attention.rotary = types.firstIndex { $0.0 == windowed[layer] }
        }
        return try model.architecture()
    }

    /// `rope_scaling` of older configs concerns the full layers only.
    private static func rotary(_ config: ConfigReader, headSize: Int, layerType: String) throws -> RotaryDescription {
        var fields = try config.object("rope_parameters")?.object(layerType)?.values ?? [:]
        if layerType == "full_attention", let scaling = try config.object("rope_scaling") {
            for (key, value) in scaling.values { fields[key] = value }
        }
        let theta = try config.double("rope_theta", default: 500_000)
        return try config.rotary(headSize: headSize, fields: config.nested(fields), .init(defaultTheta: theta))
    }
}

extension LlamaLike {
    mutating func becomeOLMo2() throws {
        try readBiases()
        normalizeTokens()
        blockEnd = [
            norm("post_attention_layernorm", .attentionOutputNorm), norm("post_feedforward_layernorm", .feedForwardOutputNorm),
        ]
    }

    /// RMS norms of all queries of a token together, and of all its keys.
    mutating func normalizeTokens() {
        attentionEnd = [("q_norm", heads, Role.queryNorm), ("k_norm", keyValueHeads, .keyNorm)].map {
            rmsNorm($0, $1 * headSize, epsilon, role: $2, className: "\(prefix)RMSNorm")
        }
        forEachBlock { $0.attention.normScope = .token }
    }
}
