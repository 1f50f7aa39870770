import NibbleCore

/// Nemotron-H (arXiv 2504.03624) and Nemotron 3 (arXiv 2512.20848): every block is Mamba 2, attention without positions, a
/// feed-forward, or a mixture of experts without gates.
///
///     nibble generate nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16 --load-in-4bit --quant-type nf4 "The capital of France is"
enum NemotronH {
    private enum Kind: String {
        case mamba, attention, mlp, mixture

        var isFeedForward: Bool { self == .mlp || self == .mixture }
    }

    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.aliasing([
            "rms_norm_eps": "layer_norm_epsilon", "hidden_act": "mlp_hidden_act",
        ]).filled(["rms_norm_eps": 1e-5, "num_key_value_heads": 8, "hidden_act": "relu2", "head_dim": 128])
        let kinds = try kinds(config)
        let model = try LlamaLike(config.replacing("num_hidden_layers", .int(kinds.count)), "NemotronH", rotary: nil)
        let activation = try config.activation("mamba_hidden_act", default: "silu")
        let space = try stateSpace(config, activation)
        let bias = try config.bool("use_bias", default: false)
        let mamba = try stateSpaceMixer(
            "mixer", "NemotronHMamba2Mixer", normClass: "NemotronHRMSNormGated", space, width: model.width,
            epsilon: model.epsilon,
            activation: activation,
            bias: (bias, bias), convolutionBias: config.bool("use_conv_bias", default: true))
        let experts = kinds.contains(.mixture) ? try experts(config, model) : nil
        let feedForwardBias = try config.bool("mlp_bias", default: false)
        let layers = kinds.map { kind in
            switch kind {
            case .mamba: LayerDescription(recurrence: .stateSpace(space), feedForward: .none)
            case .attention:
                LayerDescription(
                    attention: AttentionDescription(
                        heads: model.heads, keyValueHeads: model.keyValueHeads, headSize: model.headSize), feedForward: .none)
            case .mlp: LayerDescription(recurrence: nil, feedForward: .plain(model.activation.function))
            case .mixture: LayerDescription(recurrence: nil, feedForward: experts.map { .experts($0.description) } ?? .none)
            }
        }
        let root = module("", "NemotronHForCausalLM") {
            module("model", "NemotronHModel") {
                embedding("embeddings", model.vocabulary, model.width, role: .tokenEmbedding)
                list("layers", kinds.count) { layer, name in
                    module(name, "NemotronHBlock", role: .block) {
                        model.norm("norm", kinds[layer].isFeedForward ? .feedForwardNorm : .attentionNorm)
                        switch kinds[layer] {
                        case .mamba: mamba
                        case .attention: model.nemotronAttention
                        case .mlp: model.nemotronFeedForward(bias: feedForwardBias)
                        case .mixture:
                            if let experts { model.nemotronMixture(experts.description, experts.shared, bias: feedForwardBias) }
                        }
                    }
                }
                model.norm("norm_f", .finalNorm)
            }
            linear("lm_head", model.vocabulary, model.width, role: .head)
        }
        var keys = CheckpointKeys(basePrefix: "model", pairs: [("backbone.", "model.")])
        keys.ignoredPrefixes.append("mtp")
        return ModelArchitecture(
            modelType: try config.string("model_type", default: ""),
            tree: ModuleTree(
                root: root,
                tied: .tied(
                    try config.bool("tie_word_embeddings", default: false), ("lm_head.weight", "model.embeddings.weight")),
                noSplitClasses: ["NemotronHBlock"], alwaysFloat32: ["gate.weight"]),
            keys: keys,
            decoder: StackDescription(path: "model", width: model.width, layers: layers), vocabularySize: model.vocabulary,
            maximumPositions: try config.optionalPositions("max_position_embeddings"))
    }

    /// The kind of each block, from `layers_block_type`, or from a letter for each in `hybrid_override_pattern`.
    private static func kinds(_ config: ConfigReader) throws -> [Kind] {
        let letters = try config.optionalString("hybrid_override_pattern").map { $0.map { String($0) } }
        let names = try config.strings("layers_block_type") ?? config.strings("layer_types") ?? letters ?? []
        let kinds: [String: Kind] = [
            "mamba": .mamba, "linear_attention": .mamba, "M": .mamba, "attention": .attention, "full_attention": .attention,
            "*": .attention, "mlp": .mlp, "-": .mlp, "moe": .mixture, "E": .mixture,
        ]
        try config.require(
            !names.isEmpty && names.allSatisfy { kinds[$0] != nil }, "layers_block_type",
            "a list of mamba, attention, mlp and moe")
        return names.compactMap { kinds[$0] }
    }

    /// The mixture of the sparse layers, and the width of its shared expert.
    private static func experts(
        _ config: ConfigReader, _ model: LlamaLike
    ) throws -> (description: ExpertsDescription, shared: Int) {
        let count = try config.headCount("n_routed_experts", "num_local_experts", default: 8)
        let topK = try model.expertsPerToken(of: count, default: 2)
        var experts = ExpertsDescription(
            count: count, topK: topK, router: try .deepSeek(config, count: count, topK: topK),
            activation: .product(model.activation.function), width: try config.size("moe_intermediate_size", default: 7688))
        experts.activation = .plain(model.activation.function)
        experts.latent = try config.optionalSize("moe_latent_size")
        experts.shared = .plain
        return (experts, try config.size("moe_shared_expert_intermediate_size", default: 7688))
    }

    private static func stateSpace(_ config: ConfigReader, _ activation: NamedActivation) throws -> StateSpaceDescription {
        var space = StateSpaceDescription(
            heads: try config.headCount("mamba_num_heads", default: 128),
            headSize: try config.size("mamba_head_dim", default: 64),
            groups: try config.headCount("n_groups", default: 8), stateSize: try config.size("ssm_state_size", default: 128),
            kernel: try config.size("conv_kernel", default: 4), activation: activation.function)
        space.timeLimits = try config.timeLimits()
        return space
    }
}

extension LlamaLike {
    fileprivate var nemotronAttention: ModuleNode {
        module("mixer", "NemotronHAttention", role: .selfAttention) {
            linear("q_proj", heads * headSize, width, role: .query)
            linear("k_proj", keyValueHeads * headSize, width, role: .key)
            linear("v_proj", keyValueHeads * headSize, width, role: .value)
            linear("o_proj", width, heads * headSize, role: .attentionOutput)
        }
    }

    fileprivate func nemotronFeedForward(
        _ name: String = "mixer", inner: Int? = nil, bias: Bool, role: Role = .feedForward
    ) -> ModuleNode {
        let inner = inner ?? self.inner
        return module(name, "NemotronHMLP", role: role) {
            linear("up_proj", inner, width, bias: bias, role: .up)
            linear("down_proj", width, inner, bias: bias, role: .down)
            plain("act_fn", activation.className)
        }
    }

    fileprivate func nemotronMixture(_ experts: ExpertsDescription, _ sharedWidth: Int, bias: Bool) -> ModuleNode {
        let (count, inputWidth) = (experts.count, experts.latent ?? width)
        return module("mixer", "NemotronHMoE", role: .feedForward) {
            ModuleNode(
                "experts", "NemotronHExperts", kind: .experts, role: .experts,
                parameters: [
                    .init("up_proj", [count, experts.width, inputWidth]), .init("down_proj", [count, inputWidth, experts.width]),
                ],
                children: [plain("act_fn", activation.className)])
            ModuleNode(
                "gate", "NemotronHTopkRouter", kind: .router, role: .router, parameters: [.init("weight", [count, width])],
                buffers: [.init("e_score_correction_bias", count: count, isPersistent: true, isRequired: true)])
            nemotronFeedForward("shared_experts", inner: sharedWidth, bias: bias, role: .sharedExpert)
            if let latent = experts.latent {
                linear("fc1_latent_proj", latent, width, bias: bias, role: .latentInput)
                linear("fc2_latent_proj", width, latent, bias: bias, role: .latentOutput)
            } else {
                plain("fc1_latent_proj", "Identity")
                plain("fc2_latent_proj", "Identity")
            }
        }
    }
}
