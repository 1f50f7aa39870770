import NibbleCore

/// Falcon-H1 (arXiv 2507.22448): attention and Mamba 2 side by side in every layer, and a factor on nearly everything.
///
///     nibble generate tiiuae/Falcon-H1-1.5B-Instruct --load-in-4bit --quant-type nf4 "The capital of France is"
enum FalconH1 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled([
            "rms_norm_eps": 1e-5, "num_key_value_heads": 8, "max_position_embeddings": 8192,
        ])
        var model = try LlamaLike(config, "FalconH1", rotary: .init(defaultTheta: 100_000))
        try model.readBiases(feedForward: true)
        model.outputBias = model.queryKeyValueBias
        let space = try stateSpace(config, model)
        let factorCount = space.width + space.channels + space.heads
        let mamba = try model.mambaMixer(
            space, outputBias: config.bool("projectors_bias", default: false),
            buffers: [.init("mup_vector", count: factorCount, followsLoadDType: true)])
        let factors = try Factors(config)
        try refuseScaledBiases(config, factors, model)
        model.forEachBlock {
            $0.recurrence = .stateSpace(space)
            // Queries, keys and values are linear in the input.
            $0.attention.scale *= factors.attentionInput * factors.attentionInput * factors.key
            $0.attention.outputScale = factors.attentionInput * factors.attentionOutput
            $0.feedForwardScales = (factors.gate, factors.down)
        }
        model.embeddingScale = try config.float("embedding_multiplier", default: 1)
        model.head.scale = try config.float("lm_head_multiplier", default: 1)
        model.beforeAttention = [model.gated("feed_forward"), mamba]
        model.afterAttention = { [model] in
            [model.norm("input_layernorm", .attentionNorm), model.norm("pre_ff_layernorm", .feedForwardNorm)]
        }
        model.finalNorm = "final_layernorm"
        return try model.architecture()
    }

    private struct Factors {
        let attentionInput, attentionOutput, key, gate, down: Float

        init(_ config: ConfigReader) throws {
            attentionInput = try config.float("attention_in_multiplier", default: 1)
            attentionOutput = try config.float("attention_out_multiplier", default: 1)
            key = try config.float("key_multiplier", default: 1)
            let feedForward = try config.factors("mlp_multipliers", count: 2)
            (gate, down) = (feedForward[0], feedForward[1])
            try config.require(gate != 0, "mlp_multipliers", "other numbers than zero")
        }
    }

    private static func stateSpace(_ config: ConfigReader, _ model: LlamaLike) throws -> StateSpaceDescription {
        var space = try config.stateSpace(
            width: model.width, inner: config.optionalSize("mamba_d_ssm"), activation: model.activation)
        space.hasNorm = try config.bool("mamba_rms_norm", default: false)
        space.gatesFirst = try !config.bool("mamba_norm_before_gate", default: true)
        let input = try config.float("ssm_in_multiplier", default: 1)
        let parts = try config.factors("ssm_multipliers", count: 5).map { $0 * input }
        space.multipliers = .init(gate: parts[0], input: parts[1], b: parts[2], c: parts[3], time: parts[4])
        space.outputScale = try config.float("ssm_out_multiplier", default: 1)
        return space
    }

    /// Factors of an input are applied to the products of it, which must have no bias then.
    private static func refuseScaledBiases(_ config: ConfigReader, _ factors: Factors, _ model: LlamaLike) throws {
        try config.require(
            !model.queryKeyValueBias || factors.attentionInput == 1 && factors.key == 1, "attention_bias",
            "no bias beside multipliers of the attention's input")
        let hasBias = try config.bool("mamba_proj_bias", default: false)
        try config.require(
            try !hasBias || config.float("ssm_in_multiplier", default: 1) == 1, "mamba_proj_bias",
            "no bias beside a multiplier of the mixer's input")
    }
}

extension ConfigReader {
    /// A list of `count` factors; ones where the config has none.
    fileprivate func factors(_ key: String, count: Int) throws -> [Float] {
        let numbers = try doubles(key) ?? Array(repeating: 1, count: count)
        try require(numbers.count == count, key, "\(count) numbers")
        return numbers.map { Float($0) }
    }
}
