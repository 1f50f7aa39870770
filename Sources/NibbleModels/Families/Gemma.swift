import NibbleCore

/// Gemma (arXiv 2403.08295): wide heads, norms that store w − 1, embeddings scaled by √width.
///
///     nibble generate google/gemma-2b --load-in-4bit --quant-type nf4 "The capital of France is"
enum Gemma {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let defaults: JSONObject = [
            "num_key_value_heads": 16, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": true,
            "max_position_embeddings": 8192,
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
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture { try Gemma2.architecture(config, "Gemma2") }

    /// VaultGemma: without norms on what a sublayer gives.
    ///
    ///     nibble generate google/vaultgemma-1b --load-in-4bit --quant-type nf4 "The capital of France is"
    static func vaultArchitecture(_ config: ConfigReader) throws -> ModelArchitecture {
        try architecture(config, "VaultGemma") { model in
            model.blockEnd = [
                model.norm("input_layernorm", .attentionNorm), model.norm("pre_feedforward_layernorm", .feedForwardNorm),
            ]
        }
    }

    private static func architecture(
        _ config: ConfigReader, _ prefix: String, _ change: (inout LlamaLike) -> Void = { _ in }
    ) throws -> ModelArchitecture {
        let defaults: JSONObject = [
            "num_key_value_heads": 4, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
            "tie_word_embeddings": true, "query_pre_attn_scalar": 256, "sliding_window": 4096,
            "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0, "max_position_embeddings": 8192,
        ]
        var model = try LlamaLike(config.filled(defaults), prefix)
        try model.becomeGemma()
        try model.surroundSublayers()
        change(&model)
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
            "max_position_embeddings": 131_072,
        ]
        let config = config.filled(defaults)
        let pattern = try config.size("sliding_window_pattern", "_sliding_window_pattern", default: 6)
        let layers = try config.layerCount("num_hidden_layers")
        let types = try config.layerTypes(layers) { ($0 + 1) % pattern == 0 ? "full_attention" : "sliding_attention" }

        var model = try LlamaLike(config, "Gemma3", rotary: nil)
        model.rotary = try rotary(config, headSize: model.headSize)
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

    /// The rotary embeddings of full and of windowed layers. `rope_scaling` and `rope_theta` of older configs concern the
    /// full layers only; `rope_local_base_freq` is the windowed layers' base.
    private static func rotary(_ config: ConfigReader, headSize: Int) throws -> [RotaryDescription] {
        let parameters = try config.object("rope_parameters")
        var (full, windowed) = (
            try parameters?.object("full_attention")?.values ?? [:], try parameters?.object("sliding_attention")?.values ?? [:]
        )
        if let parameters, !parameters.values.isEmpty, full.isEmpty, windowed.isEmpty {
            config.noteUnread("rope_parameters", because: "it holds neither full_attention nor sliding_attention")
        }
        for (key, value) in try config.object("rope_scaling")?.values ?? [:] { full[key] = value }
        func read(_ fields: JSONObject, theta key: String, default fallback: Double) throws -> RotaryDescription {
            let theta = try config.double(key, default: fallback)
            return try config.rotary(headSize: headSize, fields: config.nested(fields), .init(defaultTheta: theta))
        }
        return [
            try read(full, theta: "rope_theta", default: 1_000_000),
            try read(windowed, theta: "rope_local_base_freq", default: 10000),
        ]
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
    func softCap(_ key: String) throws -> Float? {
        guard let cap = try optionalDouble(key) else { return nil }
        try require(cap > 0, key, "a positive number")
        return Float(cap)
    }
}
