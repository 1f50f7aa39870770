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

    package static let architectures = ["llama", "qwen2", "qwen3", "gemma", "gemma2"]

    /// The Hugging Face name of a tensor; `nil` for one that has no counterpart (`rope_freqs.weight`) and for an unknown one.
    package static func huggingFaceName(_ ggufName: String, architecture: String) -> String? {
        guard architectures.contains(architecture) else { return nil }
        let parts = ggufName.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        guard let suffix = parts.last, suffix == "weight" || suffix == "bias" else { return nil }
        if parts.count == 2, let name = outer[parts[0]] { return "\(name).\(suffix)" }
        let names = architecture == "gemma2" ? inner.merging(innerOfGemma2) { _, own in own } : inner
        guard parts.count == 4, parts[0] == "blk", let layer = Int(parts[1]), layer >= 0, let name = names[parts[2]] else {
            return nil
        }
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

    private static let innerOfGemma2 = [
        "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    ]

    /// What the converter did to the tensor.
    package static func change(_ ggufName: String, architecture: String) -> Change {
        let part = ggufName.split(separator: ".").dropLast().last
        switch (architecture, part) {
        case ("llama", "attn_q"): return .interleavedHeads(countKey: "attention.head_count")
        case ("llama", "attn_k"): return .interleavedHeads(countKey: "attention.head_count_kv")
        case ("gemma", let part?) where part.hasSuffix("norm"), ("gemma2", let part?) where part.hasSuffix("norm"):
            return .addedOne
        default: return .none
        }
    }
}
