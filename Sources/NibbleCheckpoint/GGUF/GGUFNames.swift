/// How GGUF files name tensors, and what their converter changes, for the architectures that are read.
package enum GGUFNames {
    /// What the converter did to a tensor's values, which reading undoes.
    package enum Change: Sendable, Equatable {
        case none
        /// The two halves of each head's rows were interleaved for another form of rotary embedding. The number of heads
        /// is the metadata value of this key, after the architecture and a dot.
        case interleavedHeads(countKey: String)
        /// Norm weights were stored with one added.
        case addedOne
    }

    package static var architectures: [String] { families.keys.sorted() }

    /// What differs between architectures.
    struct Family {
        let modelType, className: String
        /// Names in a block that are not Llama's.
        var names: [String: String] = [:]
        /// Metadata after `ARCHITECTURE.` that have a key of their own in `config.json`.
        var keys: [(gguf: String, key: String)] = []
        /// Whether the converter interleaved the halves of each head's queries and keys.
        var interleavesHeads = false
        /// Whether norm weights were stored with one added.
        var addsOne = false
        var activation = "silu"

        init(_ modelType: String, _ className: String) {
            self.modelType = modelType
            self.className = className
        }
    }

    /// By `general.architecture`.
    static let families: [String: Family] = {
        func family(_ modelType: String, _ className: String, _ change: (inout Family) -> Void = { _ in }) -> Family {
            var family = Family(modelType, "\(className)ForCausalLM")
            change(&family)
            return family
        }
        let interleaved: (inout Family) -> Void = { $0.interleavesHeads = true }
        let normedOutputs: (inout Family) -> Void = { $0.names = normsAfterSublayers }
        return [
            "arcee": family("arcee", "Arcee") { ($0.interleavesHeads, $0.activation) = (true, "relu2") },
            "exaone": family("exaone", "Exaone"),
            "exaone4": family("exaone4", "Exaone4") {
                ($0.names, $0.keys) = (normsAfterSublayers, [("attention.sliding_window", "sliding_window")])
            },
            "gemma": family("gemma", "Gemma", becomeGemma),
            "gemma2": family("gemma2", "Gemma2") {
                becomeGemma(&$0)
                ($0.names, $0.keys) = (normsAroundSublayers, gemma2Keys)
            },
            "gemma3": family("gemma3_text", "Gemma3") {
                becomeGemma(&$0)
                ($0.names, $0.keys) = (normsAroundSublayers, gemma3Keys)
            },
            "granite": family("granite", "Granite") { ($0.interleavesHeads, $0.keys) = (true, graniteKeys) },
            "hunyuan-dense": family("hunyuan_v1_dense", "HunYuanDenseV1") {
                $0.names = ["attn_q_norm": "self_attn.query_layernorm", "attn_k_norm": "self_attn.key_layernorm"]
            },
            "llama": family("llama", "Llama", interleaved), "olmo2": family("olmo2", "Olmo2", normedOutputs),
            "qwen2": family("qwen2", "Qwen2"), "qwen3": family("qwen3", "Qwen3"),
            "seed_oss": family("seed_oss", "SeedOss") { $0.names = ["post_attention_norm": "post_attention_layernorm"] },
            "smollm3": family("smollm3", "SmolLM3", interleaved),
        ]
    }()

    private static func becomeGemma(_ family: inout Family) {
        (family.addsOne, family.activation) = (true, "gelu_pytorch_tanh")
    }

    /// The Hugging Face name of a tensor; `nil` for one that has no counterpart (`rope_freqs.weight`) and for an unknown one.
    package static func huggingFaceName(_ ggufName: String, architecture: String) -> String? {
        guard let family = families[architecture] else { return nil }
        let parts = ggufName.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        guard let suffix = parts.last, suffix == "weight" || suffix == "bias" else { return nil }
        if parts.count == 2, let name = outer[parts[0]] { return "\(name).\(suffix)" }
        guard parts.count == 4, parts[0] == "blk", let layer = Int(parts[1]), layer >= 0,
            let name = family.names[parts[2]] ?? inner[parts[2]]
        else { return nil }
        return "model.layers.\(layer).\(name).\(suffix)"
    }

    private static let outer = ["token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"]

    private static let inner = [
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    ]

    private static let normsAfterSublayers = [
        "post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
    ]

    private static let normsAroundSublayers = normsAfterSublayers.merging(["ffn_norm": "pre_feedforward_layernorm"]) { $1 }

    /// What the converter did to the tensor.
    package static func change(_ ggufName: String, architecture: String) -> Change {
        guard let family = families[architecture], let part = ggufName.split(separator: ".").dropLast().last else { return .none }
        switch part {
        case "attn_q" where family.interleavesHeads: return .interleavedHeads(countKey: "attention.head_count")
        case "attn_k" where family.interleavesHeads: return .interleavedHeads(countKey: "attention.head_count_kv")
        case _ where family.addsOne && part.hasSuffix("norm"): return .addedOne
        default: return .none
        }
    }
}
