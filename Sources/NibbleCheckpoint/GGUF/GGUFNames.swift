import NibbleCore

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
        /// The rows of each matrix were split in two halves. The second is the tensor of this name.
        case split(second: String)
        /// A matrix of one row may have become a vector.
        case row
    }

    package static var architectures: [String] { Set(families.keys).union(mixtures.keys).sorted() }

    static func family(_ architecture: String, hasExperts: Bool) -> Family? {
        (hasExperts ? mixtures : families)[architecture]
    }

    /// The Hugging Face name of a tensor; `nil` for one that has no counterpart (`rope_freqs.weight`) and for an unknown one.
    /// The name has a `#` for the expert's number if each matrix of the tensor has a name of its own.
    package static func huggingFaceName(_ ggufName: String, architecture: String, hasExperts: Bool = false) -> String? {
        guard let family = family(architecture, hasExperts: hasExperts) else { return nil }
        let parts = ggufName.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        guard let suffix = parts.last, suffix == "weight" || suffix == "bias" else { return nil }
        if parts.count == 2, let name = outer[parts[0]] { return "\(name).\(suffix)" }
        guard parts.count > 2, parts[0] == "blk", let layer = Int(parts[1]), layer >= 0,
            let name = parts.count == 4 ? family.names[parts[2]] ?? inner[parts[2]] : expertName(parts.dropFirst(2), family)
        else { return nil }
        return "model.layers.\(layer).\(name).\(suffix)"
    }

    /// Files of 2023 hold a tensor for each expert: `ffn_gate.3.weight`.
    private static func expertName(_ parts: ArraySlice<String>, _ family: Family) -> String? {
        guard parts.count == 3, let part = parts.first, let index = Int(parts[parts.startIndex + 1]), index >= 0,
            let name = family.names[part + "_exps"], name.containsBytes("#")
        else { return nil }
        return name.replacing("#", with: "\(index)")
    }

    private static let outer = ["token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"]

    private static let inner = [
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    ]

    /// What the converter did to the tensor.
    package static func change(_ ggufName: String, architecture: String, hasExperts: Bool = false) -> Change {
        guard let family = family(architecture, hasExperts: hasExperts) else { return .none }
        let parts = ggufName.split(separator: ".")
        guard let part = parts.dropLast().last.map(String.init), let suffix = parts.last else { return .none }
        if let second = family.secondHalves[part] {
            return .split(second: (parts.dropLast(2).map(String.init) + [second, String(suffix)]).joined(separator: "."))
        }
        switch part {
        case "attn_q" where family.interleavesHeads: return .interleavedHeads(countKey: "attention.head_count")
        case "attn_k" where family.interleavesHeads: return .interleavedHeads(countKey: "attention.head_count_kv")
        case "ffn_gate_inp_shexp": return .row
        case _ where family.addsOne && part.hasSuffix("norm") && suffix == "weight": return .addedOne
        default: return .none
        }
    }
}
