public import NibbleCore

/// How GGUF files name things, and what their converter changes, for the architectures whose checkpoints are read.
public enum GGUFNames {
    /// What the converter did to a tensor's values and reading must undo.
    public enum Change: Sendable, Equatable {
        case none
        /// The two halves of each head's rows were interleaved for another form of rotary embedding. The number of heads
        /// is the metadata value of this key, after the architecture and a dot.
        case interleavedHeads(countKey: String)
        /// Norm weights were stored with one added.
        case addedOne
    }

    public static let architectures = ["llama", "qwen2", "gemma"]

    /// The Hugging Face name of a tensor; `nil` for one that has none there (`rope_freqs.weight`) or an unknown one.
    public static func huggingFaceName(_ ggufName: String, architecture: String) -> String? {
        guard architectures.contains(architecture) else { return nil }
        let parts = ggufName.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        guard let suffix = parts.last, suffix == "weight" || suffix == "bias" else { return nil }
        if parts.count == 2, let name = outer[parts[0]] { return "\(name).\(suffix)" }
        guard parts.count == 4, parts[0] == "blk", let layer = Int(parts[1]), layer >= 0, let name = inner[parts[2]] else {
            return nil
        }
        return "model.layers.\(layer).\(name).\(suffix)"
    }

    private static let outer = ["token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"]

    private static let inner = [
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    ]

    /// What was done to the tensor when the file was made.
    public static func change(_ ggufName: String, architecture: String) -> Change {
        let part = ggufName.split(separator: ".").dropLast().last
        switch (architecture, part) {
        case ("llama", "attn_q"): return .interleavedHeads(countKey: "attention.head_count")
        case ("llama", "attn_k"): return .interleavedHeads(countKey: "attention.head_count_kv")
        case ("gemma", let part?) where part.hasSuffix("norm"): return .addedOne
        default: return .none
        }
    }

    /// Metadata after `ARCHITECTURE.` → key of `config.json`.
    private static let configKeys: [(gguf: String, key: String)] = [
        ("embedding_length", "hidden_size"), ("block_count", "num_hidden_layers"), ("feed_forward_length", "intermediate_size"),
        ("attention.head_count", "num_attention_heads"), ("attention.head_count_kv", "num_key_value_heads"),
        ("attention.key_length", "head_dim"), ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
        ("rope.freq_base", "rope_theta"),
        ("context_length", "max_position_embeddings"), ("vocab_size", "vocab_size"),
    ]

    private static let tokenKeys: [(gguf: String, key: String)] = [
        ("tokenizer.ggml.bos_token_id", "bos_token_id"), ("tokenizer.ggml.eos_token_id", "eos_token_id"),
        ("tokenizer.ggml.padding_token_id", "pad_token_id"),
    ]

    private static let classNames = ["llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "gemma": "GemmaForCausalLM"]

    /// What `config.json` would say.
    /// - Throws: ``CheckpointError`` for another architecture.
    public static func config(_ file: GGUFFile) throws -> JSONObject {
        guard let architecture = file.architecture, let className = classNames[architecture] else {
            throw CheckpointError.refused(
                file: file.url.path,
                what: "architecture \(file.architecture ?? "(none)") is not read; \(architectures.joined(separator: ", ")) are")
        }
        var config: JSONObject = ["architectures": [.string(className)], "model_type": .string(architecture)]
        for (gguf, key) in configKeys { config[key] = file.metadata["\(architecture).\(gguf)"].flatMap(json) }
        for (gguf, key) in tokenKeys { config[key] = file.metadata[gguf].flatMap(json) }
        if config["num_key_value_heads"] == nil { config["num_key_value_heads"] = config["num_attention_heads"] }
        // The embedding table decides: token lists are sometimes padded.
        if let table = file.info("token_embd.weight"), table.shape.rank == 2 { config["vocab_size"] = .int(table.shape[0]) }
        config[architecture == "gemma" ? "hidden_activation" : "hidden_act"] =
            architecture == "gemma" ? "gelu_pytorch_tanh" : "silu"
        config["tie_word_embeddings"] = .bool(file.info("output.weight") == nil)
        if architecture == "llama" { config["attention_bias"] = .bool(file.info("blk.0.attn_q.bias") != nil) }
        config["rope_scaling"] = ropeScaling(file, architecture)
        return config
    }

    private static func ropeScaling(_ file: GGUFFile, _ architecture: String) -> JSONValue? {
        guard let type = file.metadata["\(architecture).rope.scaling.type"]?.string, type != "none",
            let factor = file.metadata["\(architecture).rope.scaling.factor"].flatMap(json)
        else { return nil }
        var scaling: JSONObject = ["rope_type": .string(type), "factor": factor]
        let original = file.metadata["\(architecture).rope.scaling.original_context_length"]
        scaling["original_max_position_embeddings"] = original.flatMap(json)
        return .object(scaling)
    }

    private static func json(_ value: GGUFValue) -> JSONValue? {
        switch value {
        case .int(let value): .int(value)
        // Stored as a 32-bit float: the shortest decimal that gives it is what was meant.
        case .double(let value): .double(Double("\(Float(value))") ?? value)
        case .bool(let value): .bool(value)
        case .string(let value): .string(value)
        default: nil
        }
    }
}
