import NibbleCore

/// K-EXAONE: EXAONE 4's attention under norms before each sublayer, and a mixture with DeepSeek-V3's router.
///
///     nibble generate LGAI-EXAONE/K-EXAONE-236B-A23B --load-in-4bit --quant-type nf4 "대한민국의 수도는"
enum ExaoneMoE {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled([
            "num_key_value_heads": 32, "rms_norm_eps": 1e-5, "intermediate_size": 16384, "sliding_window": 4096,
            "sliding_window_pattern": 4, "max_position_embeddings": 2048,
        ])
        var model = try LlamaLike(config, "ExaoneMoe")
        model.normalizeHeads("q_norm", "k_norm")
        try model.slideLikeExaone()
        let first = try config.int("first_k_dense_replace", default: 1)
        let sparse = try config.feedForwardTypes(model.layers) { $0 < first ? "dense" : "sparse" }.map { $0 == "sparse" }
        try model.mix(
            DeepSeekMixture(
                countKey: "num_experts", sharedKey: "num_shared_experts", count: 64, width: 1024,
                className: "ExaoneMoeSparseMoEBlock")
        ) { sparse[$0] }
        model.ignoreFurtherLayers()
        model.keys.renameOnce(from: ".mlp.e_score_correction_bias", to: ".mlp.gate.e_score_correction_bias")
        return try model.architecture()
    }
}

extension ConfigReader {
    /// Which layers are dense and which a mixture, from `mlp_layer_types`, or `fallback` of their index.
    func feedForwardTypes(_ count: Int, default fallback: (Int) -> String) throws -> [String] {
        let types = try strings("mlp_layer_types") ?? (0..<count).map(fallback)
        try require(
            types.count == count && types.allSatisfy { ["dense", "sparse"].contains($0) }, "mlp_layer_types",
            "\(count) of dense, sparse")
        return types
    }
}
