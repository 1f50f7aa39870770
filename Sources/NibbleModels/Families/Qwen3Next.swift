import NibbleCore

/// Qwen3-Next: gated delta nets, with gated attention in every fourth layer; mixtures of experts beside one that sees every
/// token.
///
///     nibble generate Qwen/Qwen3-Next-80B-A3B-Instruct --load-in-4bit --quant-type nf4 "The capital of France is"
enum Qwen3Next {
    static let defaults: JSONObject = [
        "num_key_value_heads": 2, "head_dim": 256, "max_position_embeddings": 32768, "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
        "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512, "num_experts_per_tok": 10, "num_experts": 512,
        "norm_topk_prob": true, "intermediate_size": 5632,
    ]

    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var model = try model(config.filled(defaults), "Qwen3Next", .byKeyHead)
        try model.addSharedMixtures()
        return try model.architecture()
    }

    static func model(
        _ config: ConfigReader, _ prefix: String, _ projections: GatedDeltaDescription.Projections
    ) throws -> LlamaLike {
        var model = try LlamaLike(config, prefix, rotary: .init(defaultShare: 0.25))
        let (width, epsilon) = (model.width, model.epsilon)
        // Files hold w − 1.
        model.norm = { rmsNorm($0, width, epsilon, offset: 1, role: $1, className: "\(prefix)RMSNorm") }
        model.blockEnd = [
            model.norm("input_layernorm", .attentionNorm), model.norm("post_attention_layernorm", .feedForwardNorm),
        ]
        try model.gateAttention()
        try model.addGatedDeltaNets(projections)
        // Layers that predict further tokens.
        model.keys.ignoredPrefixes.append("mtp")
        return model
    }
}

/// Qwen 3.5 and later: Qwen3-Next with separate projections.
///
///     nibble generate Qwen/Qwen3.5-27B --load-in-4bit --quant-type nf4 "The capital of France is"
enum Qwen35 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled(["num_key_value_heads": 4, "intermediate_size": 12288]).filled(Qwen3Next.defaults)
        return try model(config, "Qwen3_5").architecture()
    }

    static func mixtureArchitecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled(["num_experts": 256, "num_experts_per_tok": 8]).filled(Qwen3Next.defaults)
        var model = try model(config, "Qwen3_5Moe")
        try model.addSharedMixtures()
        return try model.architecture()
    }

    private static func model(_ config: ConfigReader, _ prefix: String) throws -> LlamaLike {
        var model = try Qwen3Next.model(config, prefix, .sideBySide)
        model.modelClass = "\(prefix)TextModel"
        model.rotaryPrefix = "\(prefix)Text"
        model.otherNoSplitClasses = ["\(prefix)VisionBlock"]
        return model
    }
}

extension LlamaLike {
    fileprivate mutating func addSharedMixtures() throws {
        try addQwenMixtures(
            count: 512,
            shared: [
                gated("shared_expert", inner: try config.size("shared_expert_intermediate_size"), role: .sharedExpert),
                linear("shared_expert_gate", 1, width, role: .sharedExpertGate),
            ])
    }

    fileprivate mutating func gateAttention() throws {
        try readBiases()
        gatesAttention = true
        attentionEnd = [("q_norm", Role.queryNorm), ("k_norm", .keyNorm)].map {
            rmsNorm($0, headSize, epsilon, offset: 1, role: $1, className: "\(prefix)RMSNorm")
        }
        forEachBlock { [heads, keyValueHeads, headSize] in
            $0.attention.layout = .gated(heads: heads, keyValueHeads: keyValueHeads, headSize: headSize)
            $0.attention.outputGate = .init(offset: headSize, stride: 2 * headSize)
        }
    }

    /// Gated delta nets in the layers of type `linear_attention`: by default all but every fourth.
    fileprivate mutating func addGatedDeltaNets(_ projections: GatedDeltaDescription.Projections) throws {
        let interval = try config.size("full_attention_interval", default: 4)
        let types = try config.layerTypes(layers, known: ["full_attention", "linear_attention"]) {
            ($0 + 1) % interval == 0 ? "full_attention" : "linear_attention"
        }
        var delta = GatedDeltaDescription(
            keyHeads: try config.headCount("linear_num_key_heads"), valueHeads: try config.headCount("linear_num_value_heads"),
            keySize: try config.size("linear_key_head_dim"), valueSize: try config.size("linear_value_head_dim"),
            kernel: try config.size("linear_conv_kernel_dim"), activation: activation.function)
        delta.projections = projections
        try config.require(
            delta.valueHeads % delta.keyHeads == 0, "linear_num_value_heads", "a multiple of the \(delta.keyHeads) key heads")
        let net = gatedDeltaNet(delta)
        mixer = { types[$0] == "linear_attention" ? net : nil }
        for layer in blocks.indices where types[layer] == "linear_attention" {
            blocks[layer].selfAttention = nil
            blocks[layer].recurrence = .gatedDelta(delta)
        }
    }

    private func gatedDeltaNet(_ delta: GatedDeltaDescription) -> ModuleNode {
        let names =
            switch delta.projections {
            case .sideBySide: ["in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"]
            case .byKeyHead: ["in_proj_qkvz", "in_proj_ba"]
            }
        let inputs = zip(names, RecurrentDescription.gatedDelta(delta).projectionWidths).map { name, out in
            linear(name, out, width, role: .mixerInput)
        }
        let outputs = [
            rmsNorm("norm", delta.valueSize, epsilon, role: .mixerNorm, className: "\(prefix)RMSNormGated"),
            linear("out_proj", width, delta.valueWidth, role: .mixerOutput),
        ]
        let ordered =
            switch delta.projections {
            case .sideBySide: outputs + inputs
            case .byKeyHead: inputs + outputs
            }
        return ModuleNode(
            "linear_attn", "\(prefix)GatedDeltaNet", role: .recurrence,
            parameters: [.init("dt_bias", [delta.valueHeads]), .init("A_log", [delta.valueHeads])],
            children: [convolution("conv1d", delta.channels, delta.kernel)] + ordered)
    }
}
