import NibbleCore

/// Nemotron 3 and 4, Minitron (arXiv 2402.16819, 2407.14679): layer norms that store w − 1, half of every head rotated, a
/// feed-forward of squared ReLU without a gate.
///
///     nibble generate nvidia/Nemotron-Mini-4B-Instruct --load-in-4bit --quant-type nf4 "The capital of France is"
enum Nemotron {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled(["hidden_act": "relu2", "max_position_embeddings": 4096])
        var model = try LlamaLike(config, "Nemotron", rotary: .init(defaultShare: 0.5))
        try model.readBiases(feedForward: true)
        let epsilon = try config.float("norm_eps", default: 1e-5)
        model.norm = { [width = model.width] in
            layerNorm($0, width, epsilon, offset: 1, role: $1, className: "NemotronLayerNorm1P")
        }
        model.blockEnd = [
            model.norm("input_layernorm", .attentionNorm), model.norm("post_attention_layernorm", .feedForwardNorm),
        ]
        model.useUngatedFeedForward()
        return try model.architecture()
    }
}

/// Jais 2: Llama with layer norms, biases everywhere and a feed-forward of squared ReLU without a gate.
///
///     nibble generate inceptionAI/Jais-2-8B-Chat --load-in-4bit --quant-type nf4 "عاصمة فرنسا هي"
enum Jais2 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled(["hidden_act": "relu2", "max_position_embeddings": 8192])
        var model = try LlamaLike(config, "Jais2")
        let bias = try config.bool("attention_bias", default: true)
        (model.queryKeyValueBias, model.outputBias) = (bias, bias)
        model.feedForwardBias = try config.bool("mlp_bias", default: true)
        let epsilon = try config.float("layer_norm_eps", default: 1e-5)
        model.norm = { [width = model.width] in layerNorm($0, width, epsilon, role: $1) }
        model.blockEnd = [
            model.norm("input_layernorm", .attentionNorm), model.norm("post_attention_layernorm", .feedForwardNorm),
        ]
        model.useUngatedFeedForward()
        return try model.architecture()
    }
}

/// Arcee AFM: Llama with a feed-forward of squared ReLU without a gate.
///
///     nibble generate arcee-ai/AFM-4.5B --load-in-4bit --quant-type nf4 "The capital of France is"
enum Arcee {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled(["hidden_act": "relu2", "rms_norm_eps": 1e-5, "max_position_embeddings": 4096])
        var model = try LlamaLike(config, "Arcee")
        try model.readBiases(feedForward: true)
        model.useUngatedFeedForward()
        return try model.architecture()
    }
}
