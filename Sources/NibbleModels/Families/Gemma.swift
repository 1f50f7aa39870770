import NibbleCore

/// Gemma (arXiv 2403.08295): wide heads, norms that store w − 1, embeddings scaled by √width.
///
///     nibble generate google/gemma-2b --load-in-4bit --quant-type nf4 "The capital of France is"
enum Gemma {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let defaults: JSONObject = [
            "num_key_value_heads": 16, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": true,
        ]
        var model = try LlamaLike(config.filled(defaults), "Gemma")
        try model.becomeGemma()
        return try model.architecture()
    }
}

/// Gemma 2 (arXiv 2408.00118): norms around every sublayer, soft caps, a window in every second layer.
///
///     nibble generate google/gemma-2-2b --load-in-4bit --quant-type nf4 "The capital of France is"
enum Gemma2 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let defaults: JSONObject = [
            "num_key_value_heads": 4, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
            "tie_word_embeddings": true, "query_pre_attn_scalar": 256, "sliding_window": 4096,
            "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0,
        ]
        var model = try LlamaLike(config.filled(defaults), "Gemma2")
        try model.becomeGemma()
        try model.surroundSublayers()
        let types = try config.layerTypes(model.layers) { $0 % 2 == 0 ? "sliding_attention" : "full_attention" }
        try model.slide { types[$0] == "sliding_attention" }
        return try model.architecture()
    }
}

/// Gemma 3, text only (arXiv 2503.19786): norms of queries and keys in place of soft caps; five layers with a window and a
/// short rotary base for each that sees everything.
///
///     nibble generate google/gemma-3-1b-it --load-in-4bit --quant-type nf4 "The capital of France is"
enum Gemma3 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let defaults: JSONObject = [
            "num_key_value_heads": 4, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
            "tie_word_embeddings": true, "query_pre_attn_scalar": 256, "sliding_window": 4096,
        ]
        let config = config.filled(defaults)
        let pattern = try config.size("sliding_window_pattern", "_sliding_window_pattern", default: 6)
        let layers = try config.layerCount("num_hidden_layers")
        let types = try config.layerTypes(layers) { ($0 + 1) % pattern == 0 ? "full_attention" : "sliding_attention" }

        var model = try LlamaLike(config, "Gemma3")
        model.rotary = [
            try config.rotary(headSize: model.headSize, layerType: "full_attention", defaultTheta: 1_000_000),
            try localRotary(config, model.headSize),
        ]
        model.rotaryLayerTypes = ["full_attention", "sliding_attention"]
        model.modelClass = "Gemma3TextModel"
        try model.becomeGemma()
        model.embeddingClass = "Gemma3TextScaledWordEmbedding"
        try model.surroundSublayers()
        let epsilon = try config.float("rms_norm_eps", default: 1e-6)
        model.attentionEnd = [("q_norm", Role.queryNorm), ("k_norm", .keyNorm)].map {
            rmsNorm($0, model.headSize, epsilon, offset: 1, role: $1, className: "Gemma3RMSNorm")
        }
        for layer in model.blocks.indices where types[layer] == "sliding_attention" {
            model.blocks[layer].attention.rotary = 1
        }
        try model.slide { types[$0] == "sliding_attention" }
        return try model.architecture()
    }

    /// Older configs give the windowed layers' base alone, and their `rope_scaling` speaks of the others only.
    private static func localRotary(_ config: ConfigReader, _ headSize: Int) throws -> RotaryDescription {
        let layerType = "sliding_attention"
        if try config.object("rope_parameters")?.object(layerType) != nil {
            return try config.rotary(headSize: headSize, layerType: layerType)
        }
        var local = try config.rotary(headSize: headSize)
        local.theta = try config.double("rope_local_base_freq", default: 10000)
        local.scaling = .none
        return local
    }
}

extension LlamaLike {
    /// What all Gemma models share.
    fileprivate mutating func becomeGemma() throws {
        try config.require(
            !config.bool("use_bidirectional_attention", default: false), "use_bidirectional_attention", "false")
        let (width, prefix) = (width, prefix)
        let epsilon = try config.float("rms_norm_eps", default: 1e-6)
        try readBiases()
        norm = { rmsNorm($0, width, epsilon, offset: 1, role: $1, className: "\(prefix)RMSNorm") }
        blockEnd = [norm("input_layernorm", .attentionNorm), norm("post_attention_layernorm", .feedForwardNorm)]
        embeddingClass = "\(prefix)TextScaledWordEmbedding"
        embeddingBuffers = [.init("embed_scale", count: 1, followsLoadDType: true)]
        embeddingScale = Float(width).squareRoot()
        roundsEmbeddingScale = true
    }

    /// Norms before and after each sublayer, and an attention scale of its own.
    fileprivate mutating func surroundSublayers() throws {
        blockEnd = [
            norm("input_layernorm", .attentionNorm), norm("post_attention_layernorm", .attentionOutputNorm),
            norm("pre_feedforward_layernorm", .feedForwardNorm),
            norm("post_feedforward_layernorm", .feedForwardOutputNorm),
        ]
        let scalar = try config.float("query_pre_attn_scalar", default: 256)
        try config.require(scalar > 0, "query_pre_attn_scalar", "a positive number")
        let softCap = try config.softCap("attn_logit_softcapping")
        forEachBlock {
            $0.attention.scale = 1 / scalar.squareRoot()
            $0.attention.softCap = softCap
        }
        head.softCap = try config.softCap("final_logit_softcapping")
    }
}

extension ConfigReader {
    fileprivate func softCap(_ key: String) throws -> Float? {
        guard let cap = try optionalDouble(key) else { return nil }
        try require(cap > 0, key, "a positive number")
        return Float(cap)
    }
}
