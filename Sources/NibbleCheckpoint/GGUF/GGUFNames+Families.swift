/// The architectures that are read, and how each differs from Llama.
extension GGUFNames {
    typealias Keys = [(gguf: String, key: String)]

    /// What differs between architectures.
    struct Family {
        let modelType, className: String
        /// Names in a block that are not Llama's.
        var names: [String: String] = [:]
        /// Metadata after `ARCHITECTURE.` that have a key of their own in `config.json`.
        var keys: Keys = []
        /// The metadata after `ARCHITECTURE.` that hold the norms' epsilon.
        var epsilon = "attention.layer_norm_rms_epsilon"
        /// Whether the converter interleaved the halves of each head's queries and keys.
        var interleavesHeads = false
        /// Whether norm weights were stored with one added.
        var addsOne = false
        /// Whether only `rope.dimension_count` elements of a head are rotated.
        var rotatesPart = false
        /// Tensors of a block that were split, by the name of the first half.
        var secondHalves: [String: String] = [:]
        var activation = "silu"

        init(_ modelType: String, _ className: String, _ change: (inout Family) -> Void = { _ in }) {
            self.modelType = modelType
            self.className = "\(className)ForCausalLM"
            change(&self)
        }
    }

    /// Dense models by `general.architecture`.
    static let families: [String: Family] = {
        let interleaved: (inout Family) -> Void = { $0.interleavesHeads = true }
        let normedOutputs: (inout Family) -> Void = { $0.names = normsAfterSublayers }
        return [
            "arcee": Family("arcee", "Arcee") { ($0.interleavesHeads, $0.activation) = (true, "relu2") },
            "cohere2": Family("cohere2", "Cohere2") {
                ($0.keys, $0.epsilon) = (cohere2Keys, "attention.layer_norm_epsilon")
            },
            "ernie4_5": Family("ernie4_5", "Ernie4_5"),
            "exaone": Family("exaone", "Exaone"),
            "exaone4": Family("exaone4", "Exaone4") {
                ($0.names, $0.keys) = (normsAfterSublayers, [("attention.sliding_window", "sliding_window")])
            },
            "gemma": Family("gemma", "Gemma", becomeGemma),
            "gemma2": Family("gemma2", "Gemma2") {
                becomeGemma(&$0)
                ($0.names, $0.keys) = (normsAroundSublayers, gemma2Keys)
            },
            "gemma3": Family("gemma3_text", "Gemma3") {
                becomeGemma(&$0)
                ($0.names, $0.keys) = (normsAroundSublayers, gemma3Keys)
            },
            "glm4": Family("glm4", "Glm4") {
                $0.names = [
                    "ffn_up": "mlp.gate_up_proj", "post_attention_norm": "post_self_attn_layernorm",
                    "post_ffw_norm": "post_mlp_layernorm",
                ]
                $0.rotatesPart = true
            },
            "granite": Family("granite", "Granite") { ($0.interleavesHeads, $0.keys) = (true, graniteKeys) },
            "hunyuan-dense": Family("hunyuan_v1_dense", "HunYuanDenseV1") {
                $0.names = ["attn_q_norm": "self_attn.query_layernorm", "attn_k_norm": "self_attn.key_layernorm"]
            },
            "llama": Family("llama", "Llama", interleaved),
            "nemotron": Family("nemotron", "Nemotron") {
                ($0.addsOne, $0.rotatesPart, $0.activation) = (true, true, "relu2")
                ($0.keys, $0.epsilon) = ([("attention.layer_norm_epsilon", "norm_eps")], "attention.layer_norm_epsilon")
            },
            "olmo2": Family("olmo2", "Olmo2", normedOutputs),
            "phi3": Family("phi3", "Phi3") {
                $0.names = ["attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"]
                ($0.keys, $0.rotatesPart) = (phi3Keys, true)
            },
            "qwen2": Family("qwen2", "Qwen2"), "qwen3": Family("qwen3", "Qwen3"),
            "seed_oss": Family("seed_oss", "SeedOss") { $0.names = ["post_attention_norm": "post_attention_layernorm"] },
            "smollm3": Family("smollm3", "SmolLM3", interleaved),
        ]
    }()

    /// Mixtures of experts by `general.architecture`.
    static let mixtures: [String: Family] = [
        "granitemoe": Family("granitemoe", "GraniteMoe") {
            $0.names = [
                "ffn_gate_inp": "block_sparse_moe.router.layer", "ffn_gate_exps": "block_sparse_moe.input_linear",
                "ffn_down_exps": "block_sparse_moe.output_linear", "ffn_gate_shexp": "shared_mlp.input_linear",
                "ffn_down_shexp": "shared_mlp.output_linear",
            ]
            $0.secondHalves = ["ffn_gate_exps": "ffn_up_exps", "ffn_gate_shexp": "ffn_up_shexp"]
            $0.keys = graniteKeys + expertKeys("num_local_experts")
            $0.keys.append(("expert_shared_feed_forward_length", "shared_intermediate_size"))
            $0.interleavesHeads = true
        },
        "llama": Family("mixtral", "Mixtral") {
            $0.names = [
                "ffn_gate_inp": "block_sparse_moe.gate", "ffn_gate_exps": "block_sparse_moe.experts.#.w1",
                "ffn_down_exps": "block_sparse_moe.experts.#.w2", "ffn_up_exps": "block_sparse_moe.experts.#.w3",
            ]
            ($0.keys, $0.interleavesHeads) = (expertKeys("num_local_experts"), true)
        },
        "olmoe": Family("olmoe", "Olmoe") {
            $0.names = experts
            $0.keys = expertKeys("num_experts") + [("attention.clamp_kqv", "clip_qkv")]
        },
        "qwen2moe": Family("qwen2_moe", "Qwen2Moe") {
            ($0.names, $0.keys) = (experts.merging(sharedExpert) { $1 }, qwenMixtureKeys)
        },
        "qwen3moe": Family("qwen3_moe", "Qwen3Moe") { ($0.names, $0.keys) = (experts, qwenMixtureKeys) },
    ]

    private static func becomeGemma(_ family: inout Family) {
        (family.addsOne, family.activation) = (true, "gelu_pytorch_tanh")
    }

    // MARK: Names

    private static let normsAfterSublayers = [
        "post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
    ]

    private static let normsAroundSublayers = normsAfterSublayers.merging(["ffn_norm": "pre_feedforward_layernorm"]) { $1 }

    private static let experts = [
        "ffn_gate_inp": "mlp.gate", "ffn_gate_exps": "mlp.experts.#.gate_proj", "ffn_up_exps": "mlp.experts.#.up_proj",
        "ffn_down_exps": "mlp.experts.#.down_proj",
    ]

    private static let sharedExpert = [
        "ffn_gate_inp_shexp": "mlp.shared_expert_gate", "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
        "ffn_up_shexp": "mlp.shared_expert.up_proj", "ffn_down_shexp": "mlp.shared_expert.down_proj",
    ]

    // MARK: Keys

    private static let gemma2Keys: Keys = [
        ("attn_logit_softcapping", "attn_logit_softcapping"), ("final_logit_softcapping", "final_logit_softcapping"),
        ("attention.sliding_window", "sliding_window"),
    ]

    private static let gemma3Keys: Keys = [
        ("attention.sliding_window", "sliding_window"), ("rope.freq_base_swa", "rope_local_base_freq"),
    ]

    private static let cohere2Keys: Keys = [
        ("attention.sliding_window", "sliding_window"), ("attention.layer_norm_epsilon", "layer_norm_eps"),
        ("logit_scale", "logit_scale"),
    ]

    private static let phi3Keys: Keys = [
        ("attention.sliding_window", "sliding_window"),
        ("rope.scaling.original_context_length", "original_max_position_embeddings"),
    ]

    private static let graniteKeys: Keys = [
        ("attention.scale", "attention_multiplier"), ("embedding_scale", "embedding_multiplier"),
        ("residual_scale", "residual_multiplier"), ("logit_scale", "logits_scaling"),
    ]

    private static let qwenMixtureKeys: Keys =
        expertKeys("num_experts") + [
            ("expert_feed_forward_length", "moe_intermediate_size"),
            ("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
        ]

    private static func expertKeys(_ count: String) -> Keys {
        [("expert_count", count), ("expert_used_count", "num_experts_per_tok"), ("expert_weights_norm", "norm_topk_prob")]
    }
}
