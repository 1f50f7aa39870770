import NibbleCore

/// MiniMax-M2: norms on all of a token's queries and keys together, half of every head rotated, σ
/// scores with a bias that only chooses.
///
///     nibble generate MiniMaxAI/MiniMax-M2 --load-in-4bit --quant-type nf4 "The capital of France is"
enum MiniMaxM2 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = try withRotaryShare(
            config.filled([
                "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 1536, "max_position_embeddings": 196_608,
            ]))
        var model = try LlamaLike(config, "MiniMaxM2", rotary: .init(defaultTheta: 5_000_000, defaultShare: 1))
        model.normalizeTokens()
        let count = try config.headCount("num_local_experts", "num_experts", default: 256)
        var router = RouterDescription(normalizes: true)
        router.scoring = .sigmoid
        router.choiceBias = "e_score_correction_bias"
        let experts = ExpertsDescription(
            count: count, topK: try model.expertsPerToken(of: count, default: 8), router: router,
            activation: .product(model.activation.function), width: model.inner)
        let mixture = module(
            "mlp", "MiniMaxM2SparseMoeBlock", role: .feedForward,
            buffers: [
                .init("e_score_correction_bias", count: count, isPersistent: true, followsLoadDType: true, isRequired: true)
            ]
        ) {
            model.router("gate", experts)
            model.experts(experts)
        }
        model.mix(experts, mixture) { _ in true }
        model.keys = .numberedExperts
        model.ignoreFurtherLayers()
        return try model.architecture()
    }

    /// Published configs give the number of rotated elements, `rotary_dim`, not their share.
    private static func withRotaryShare(_ config: ConfigReader) throws -> ConfigReader {
        guard let rotated = try config.optionalSize("rotary_dim"), config.value("partial_rotary_factor") == nil else {
            return config
        }
        return config.replacing("partial_rotary_factor", .double(Double(rotated) / Double(try config.size("head_dim"))))
    }
}

extension CheckpointKeys {
    /// Checkpoints that number an expert's layers (gate, down, up) below `block_sparse_moe`.
    static let numberedExperts = CheckpointKeys(
        basePrefix: "model", fileName: { $0.replacing(".mlp.", with: ".block_sparse_moe.") },
        rename: { key in
            key.replacing(".block_sparse_moe.", with: ".mlp.").replacing(".w1.", with: ".gate_proj.")
                .replacing(".w2.", with: ".down_proj.").replacing(".w3.", with: ".up_proj.")
        })

    /// Renames one ending, also of files that have the tree's name already.
    mutating func renameOnce(from file: String, to tree: String) {
        let (rename, fileName) = (self.rename, self.fileName)
        self.rename = { name in
            let name = rename(name)
            return name.hasSuffix(file) && !name.hasSuffix(tree) ? String(name.dropLast(file.count)) + tree : name
        }
        self.fileName = { name in fileName(name.hasSuffix(tree) ? String(name.dropLast(tree.count)) + file : name) }
    }
}
