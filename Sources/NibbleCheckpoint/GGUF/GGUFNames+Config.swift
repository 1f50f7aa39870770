package import NibbleCore

/// From metadata to the content of an equivalent `config.json`.
extension GGUFNames {
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

    /// The content of an equivalent `config.json`.
    /// - Throws: ``CheckpointError`` for another architecture or another kind of file, for missing metadata, and for
    ///   metadata that do not fit the tensors.
    package static func config(_ file: GGUFFile) throws -> JSONObject {
        let (architecture, family) = try architecture(file)
        let isGemma = architecture.hasPrefix("gemma")
        var config: JSONObject = ["architectures": [.string(family.className)], "model_type": .string(family.modelType)]
        for (gguf, key) in configKeys + family.keys { config[key] = file.metadata["\(architecture).\(gguf)"].flatMap(json) }
        for (gguf, key) in tokenKeys { config[key] = file.metadata[gguf].flatMap(json) ?? defaultToken(key, file) }
        config["eos_token_id"] = endTokens(file) ?? config["eos_token_id"]
        if config["num_key_value_heads"] == nil { config["num_key_value_heads"] = config["num_attention_heads"] }
        // The embedding table decides: token lists are sometimes padded.
        if let table = file.info("token_embd.weight"), table.shape.rank == 2 { config["vocab_size"] = .int(table.shape[0]) }
        config[isGemma ? "hidden_activation" : "hidden_act"] = .string(family.activation)
        config["tie_word_embeddings"] = .bool(file.info("output.weight") == nil)
        if !architecture.hasPrefix("qwen") { config["attention_bias"] = .bool(file.info("blk.0.attn_q.bias") != nil) }
        if architecture == "seed_oss" { config["attention_out_bias"] = .bool(file.info("blk.0.attn_output.bias") != nil) }
        if architecture == "gemma2" || architecture == "gemma3" { config["query_pre_attn_scalar"] = queryScalar(config) }
        if architecture == "exaone4" {
            config["sliding_window"] = config["sliding_window"] ?? .null
            config["layer_types"] = layerTypes(file, architecture)
        }
        if architecture == "phi3", config["sliding_window"] == 0 { config["sliding_window"] = .null }
        if architecture == "ernie4_5" { config["use_bias"] = config["attention_bias"] }
        if family.rotatesPart { config["partial_rotary_factor"] = rotatedShare(file, architecture, config) }
        if hasExperts(file) { try addExperts(to: &config, file, architecture) }
        config["rope_scaling"] =
            try longRope(file, architecture, config) ?? ropeFactors(file, config) ?? ropeScaling(file, architecture)
        config["dtype"] = dtype(file, isGemma: isGemma).map { .string($0.rawValue) }
        return config
    }

    /// Which layers have a window, where the file says so of each.
    private static func layerTypes(_ file: GGUFFile, _ architecture: String) -> JSONValue? {
        guard case .bools(let pattern)? = file.metadata["\(architecture).attention.sliding_window_pattern"] else { return nil }
        return .array(pattern.map { .string($0 ? "sliding_attention" : "full_attention") })
    }

    /// The id that llama.cpp takes for a vocabulary of this kind where the file has none.
    private static func defaultToken(_ key: String, _ file: GGUFFile) -> JSONValue? {
        let defaults: [String: [String: Int]] = [
            "llama": ["bos_token_id": 1, "eos_token_id": 2], "gpt2": ["bos_token_id": 11, "eos_token_id": 11],
        ]
        guard let model = file.metadata["tokenizer.ggml.model"]?.string, let id = defaults[model]?[key],
            let tokens = file.metadata["tokenizer.ggml.tokens"]?.strings, id < tokens.count
        else { return nil }
        return .int(id)
    }

    /// - Throws: ``CheckpointError/refused(file:what:)`` for what is not a model, or not one that is supported.
    private static func architecture(_ file: GGUFFile) throws -> (architecture: String, family: Family) {
        func refused(_ what: String) -> CheckpointError { .refused(file: file.url.path, what: what) }
        if file.metadata["general.type"]?.string == "adapter" {
            throw refused("it is a LoRA adapter, not a model; its base model is needed")
        }
        guard let architecture = file.architecture, architectures.contains(architecture) else {
            throw refused(
                "architecture \((file.architecture ?? "(none)").printable()) is not read; \(architectures.joined(separator: ", ")) are"
            )
        }
        let hasExperts = hasExperts(file)
        guard let family = family(architecture, hasExperts: hasExperts) else {
            if !hasExperts { try requireExpertCounts(file, architecture) }
            throw refused("mixture-of-experts models of architecture \(architecture) are not read from GGUF files")
        }
        if hasExperts { try requireExpertCounts(file, architecture) }
        guard file.metadata["\(architecture).\(family.epsilon)"]?.double != nil else {
            throw file.malformed(expected: "a number as \(architecture).\(family.epsilon)", found: "none")
        }
        if architecture == "glm4", file.metadata["glm4.rope.dimension_sections"] != nil {
            throw refused("the text part of a GLM-4 vision model is not read from GGUF files")
        }
        if architecture == "olmo2", file.metadata["olmo2.attention.sliding_window"] != nil {
            throw refused("OLMo 3 is not read from GGUF files")
        }
        return (architecture, family)
    }

    /// A chat ends with a token of its own where the file names one.
    private static func endTokens(_ file: GGUFFile) -> JSONValue? {
        guard let end = file.metadata["tokenizer.ggml.eos_token_id"]?.int,
            let turn = file.metadata["tokenizer.ggml.eot_token_id"]?.int,
            end != turn
        else { return nil }
        return [.int(end), .int(turn)]
    }

    /// The converter leaves it out. All sizes but the largest (27B: 46 layers of Gemma 2, 62 of Gemma 3) scale by the head size.
    private static func queryScalar(_ config: JSONObject) -> JSONValue? {
        guard [46, 62].contains(config["num_hidden_layers"]?.int), let width = config["hidden_size"]?.int,
            let heads = config["num_attention_heads"]?.int, heads > 0
        else { return config["head_dim"] }
        return .int(width / heads)
    }

    /// The dtype of the matrices. Blocks are dequantized to 16 bits, whose rounding is far below that of the blocks.
    /// Gemma's activations exceed the range of float16.
    private static func dtype(_ file: GGUFFile, isGemma: Bool) -> DType? {
        let names = ["blk.0.ffn_up", "blk.0.ffn_up_exps", "blk.0.ffn_up.0", "token_embd"]
        guard let type = names.lazy.compactMap({ file.info("\($0).weight")?.type }).first else { return nil }
        if let stored = type.dtype { return [.float32, .float16, .bfloat16].contains(stored) ? stored : nil }
        return isGemma ? .bfloat16 : .float16
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

    /// The share of a head that is rotated.
    private static func rotatedShare(_ file: GGUFFile, _ architecture: String, _ config: JSONObject) -> JSONValue? {
        guard let rotated = file.metadata["\(architecture).rope.dimension_count"]?.int else { return nil }
        let (width, heads) = (config["hidden_size"]?.int ?? 0, config["num_attention_heads"]?.int ?? 0)
        let headSize = config["head_dim"]?.int ?? (heads > 0 ? width / heads : 0)
        return headSize > 0 ? .double(Double(rotated) / Double(headSize)) : nil
    }

    /// Llama 3 files store the divisor of each frequency as a tensor.
    private static func ropeFactors(_ file: GGUFFile, _ config: JSONObject) throws -> JSONValue? {
        guard let factors = try divisors("rope_freqs.weight", file), factors.contains(where: { $0 != 1 }) else { return nil }
        let list = JSONValue.array(factors.map(JSONValue.double))
        return .object([
            "rope_type": "longrope", "short_factor": list, "long_factor": list, "attention_factor": 1.0,
            "original_max_position_embeddings": config["max_position_embeddings"] ?? .null,
        ])
    }

    /// Phi-3 files store the divisors of each frequency as two tensors: for short and for long texts.
    private static func longRope(_ file: GGUFFile, _ architecture: String, _ config: JSONObject) throws -> JSONValue? {
        let names = ["rope_factors_short.weight", "rope_factors_long.weight"]
        let lists = try names.map { try divisors($0, file) }
        guard let short = lists[0], let long = lists[1] else {
            guard let index = lists.firstIndex(where: { $0 == nil }), lists[1 - index] != nil else { return nil }
            throw file.malformed(names[index], expected: "a vector of f32", found: "none, but \(names[1 - index])")
        }
        let metadata = { (key: String) in file.metadata["\(architecture).rope.scaling.\(key)"].flatMap(json) }
        var scaling: JSONObject = [
            "rope_type": "longrope", "short_factor": .array(short.map(JSONValue.double)),
            "long_factor": .array(long.map(JSONValue.double)),
        ]
        scaling["attention_factor"] = metadata("attn_factor")
        scaling["original_max_position_embeddings"] = metadata("original_context_length") ?? config["max_position_embeddings"]
        return .object(scaling)
    }

    /// The positive numbers of a vector by which frequencies are divided; `nil` if the file has none of this name.
    private static func divisors(_ name: String, _ file: GGUFFile) throws -> [Double]? {
        guard let info = file.info(name) else { return nil }
        guard info.type == .f32, info.shape.rank == 1, info.shape.count <= 1 << 12 else {
            throw CheckpointError.malformed(
                file: file.url.path, tensor: name, expected: "a vector of f32", found: "\(info.type) \(info.shape)")
        }
        let factors = try file.tensor(name).hostElements(Float.self).map { Double($0) }
        guard factors.allSatisfy({ $0.isFinite && $0 > 0 }) else {
            throw CheckpointError.malformed(file: file.url.path, tensor: name, expected: "positive numbers", found: "others")
        }
        return factors
    }

    private static func json(_ value: GGUFValue) -> JSONValue? {
        switch value {
        case .int(let value): .int(value)
        // Stored as a 32-bit float: the shortest decimal of that float is what the original config said.
        case .double(let value): .double(Double("\(Float(value))") ?? value)
        case .bool(let value): .bool(value)
        case .string(let value): .string(value)
        default: nil
        }
    }
}
