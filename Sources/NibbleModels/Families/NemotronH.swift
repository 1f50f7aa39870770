import NibbleCore

/// Nemotron-H (arXiv 2504.03624): every block is Mamba 2, attention without positions, or a feed-forward.
///
///     nibble generate nvidia/NVIDIA-Nemotron-Nano-9B-v2 --load-in-4bit --quant-type nf4 "The capital of France is"
enum NemotronH {
    private enum Kind: String {
        case mamba, attention, mlp
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
        let feedForwardBias = try config.bool("mlp_bias", default: false)
        let layers = kinds.map { kind in
            switch kind {
            case .mamba: LayerDescription(recurrence: .stateSpace(space), feedForward: .none)
            case .attention:
                LayerDescription(
                    attention: AttentionDescription(
                        heads: model.heads, keyValueHeads: model.keyValueHeads, headSize: model.headSize), feedForward: .none)
            case .mlp: LayerDescription(recurrence: nil, feedForward: .plain(model.activation.function))
            }
        }
        let root = module("", "NemotronHForCausalLM") {
            module("model", "NemotronHModel") {
                embedding("embeddings", model.vocabulary, model.width, role: .tokenEmbedding)
                list("layers", kinds.count) { layer, name in
                    module(name, "NemotronHBlock", role: .block) {
                        model.norm("norm", kinds[layer] == .mlp ? .feedForwardNorm : .attentionNorm)
                        switch kinds[layer] {
                        case .mamba: mamba
                        case .attention: model.nemotronAttention
                        case .mlp: model.nemotronFeedForward(bias: feedForwardBias)
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
                noSplitClasses: ["NemotronHBlock"]),
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
            "*": .attention, "mlp": .mlp, "-": .mlp,
        ]
        try config.require(
            !names.isEmpty && names.allSatisfy { kinds[$0] != nil }, "layers_block_type",
            "a list of mamba, attention and mlp (experts without a gate are not supported)")
        return names.compactMap { kinds[$0] }
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

    fileprivate func nemotronFeedForward(bias: Bool) -> ModuleNode {
        module("mixer", "NemotronHMLP", role: .feedForward) {
            linear("up_proj", inner, width, bias: bias, role: .up)
            linear("down_proj", width, inner, bias: bias, role: .down)
            plain("act_fn", activation.className)
        }
    }
}
