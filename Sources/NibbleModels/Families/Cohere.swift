import NibbleCore

/// Command R and R+, Aya 23: attention and feed-forward side by side after one layer norm without bias, rotation of
/// neighbouring pairs, scaled logits.
///
///     nibble generate CohereForAI/aya-23-8B --load-in-4bit --quant-type nf4 "The capital of France is"
enum Cohere {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        try model(config, "Cohere", theta: 500_000).architecture()
    }

    static func model(_ config: ConfigReader, _ prefix: String, theta: Double) throws -> LlamaLike {
        let config = config.filled(["tie_word_embeddings": true, "logit_scale": 0.0625, "max_position_embeddings": 8192])
        let epsilon = try config.float("layer_norm_eps", default: 1e-5)
        var model = try LlamaLike(config, prefix, rotary: .init(defaultTheta: theta, isInterleaved: true))
        try model.readBiases()
        let shapes: [Shape] = [[model.width], [model.heads, model.headSize], [model.keyValueHeads, model.headSize]]
        func norm(_ name: String, _ shape: Shape, _ role: Role) -> ModuleNode {
            layerNorm(name, shape, epsilon, bias: false, role: role, className: "\(prefix)LayerNorm")
        }
        model.norm = { norm($0, shapes[0], $1) }
        model.blockEnd = [norm("input_layernorm", shapes[0], .attentionNorm)]
        if try config.bool("use_qk_norm", default: false) {
            model.attentionEnd = [norm("q_norm", shapes[1], .queryNorm), norm("k_norm", shapes[2], .keyNorm)]
        }
        model.forEachBlock { $0.isParallel = true }
        model.head.scale = try config.float("logit_scale", default: 1)
        return model
    }
}

/// Command R7B and Command A, Aya Expanse's successors: Cohere with windows in three layers of four; the fourth has no
/// positions.
///
///     nibble generate CohereForAI/c4ai-command-r7b-12-2024 --load-in-4bit --quant-type nf4 "The capital of France is"
enum Cohere2 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled(["sliding_window": 4096, "use_qk_norm": false])
        var model = try Cohere.model(config, "Cohere2", theta: 10000)
        let pattern = try config.size("sliding_window_pattern", default: 4)
        let windowed = try model.slideByTypes { ($0 + 1) % pattern != 0 }
        model.removeRotary { !windowed[$0] }
        return try model.architecture()
    }
}
