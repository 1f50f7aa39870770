import NibbleCore

/// EXAONE 4 (arXiv 2507.11407): norms on what a sublayer gives and on every head's query and key. Where there are windows,
/// the layers without one have no positions either.
///
///     nibble generate LGAI-EXAONE/EXAONE-4.0-1.2B --load-in-4bit --quant-type nf4 "대한민국의 수도는"
enum Exaone4 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled([
            "num_key_value_heads": 32, "rms_norm_eps": 1e-5, "sliding_window": 4096, "sliding_window_pattern": 4,
            "max_position_embeddings": 2048,
        ])
        var model = try LlamaLike(config, "Exaone4")
        model.normalizeHeads("q_norm", "k_norm")
        model.blockEnd = [
            model.norm("post_attention_layernorm", .attentionOutputNorm),
            model.norm("post_feedforward_layernorm", .feedForwardOutputNorm),
        ]
        try model.slideLikeExaone()
        return try model.architecture()
    }

    /// Whether each layer of a repeating group has a window: a number n stands for n − 1 that have one and one that does not,
    /// a text for itself ("LLLG").
    fileprivate static func pattern(_ config: ConfigReader) throws -> [Bool] {
        if let text = config.value("sliding_window_pattern")?.string { return text.map { $0 == "L" } }
        let count = try config.layerCount("sliding_window_pattern", default: 0)
        return (0..<count).map { $0 + 1 < count }
    }
}

extension LlamaLike {
    /// Windows by `layer_types` or `sliding_window_pattern`. Where there are any, the layers without one have no positions.
    mutating func slideLikeExaone() throws {
        let hasWindows = try config.optionalSize("sliding_window") != nil
        let pattern = try hasWindows ? Exaone4.pattern(config) : []
        let windowed = try slideByTypes { pattern.isEmpty ? false : pattern[$0 % pattern.count] }
        if hasWindows { removeRotary { !windowed[$0] } }
    }

    /// RMS norms of every head's query and key.
    mutating func normalizeHeads(_ query: String, _ key: String) {
        attentionEnd = [(query, Role.queryNorm), (key, .keyNorm)].map {
            rmsNorm($0, headSize, epsilon, role: $1, className: "\(prefix)RMSNorm")
        }
    }

    /// Leaves layers without positions.
    mutating func removeRotary(where hasNone: (_ layer: Int) -> Bool) {
        for layer in blocks.indices where hasNone(layer) { blocks[layer].attention.rotary = nil }
    }
}
