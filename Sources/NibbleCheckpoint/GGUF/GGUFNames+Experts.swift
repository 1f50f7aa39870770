import NibbleCore

/// What the metadata and tensors of a mixture of experts say.
extension GGUFNames {
    private static let maximumExpertCount = 4096

    package static func hasExperts(_ file: GGUFFile) -> Bool {
        expertCount(file) ?? 0 != 0 || file.names.contains { $0.containsBytes("_exps.") }
    }

    /// `ARCHITECTURE.expert_count`
    static func expertCount(_ file: GGUFFile) -> Int? {
        file.architecture.flatMap { file.metadata["\($0).expert_count"]?.int }
    }

    /// - Throws: ``CheckpointError/malformed(file:tensor:expected:found:)``
    static func requireExpertCounts(_ file: GGUFFile, _ architecture: String) throws {
        for (key, limit) in [("expert_count", maximumExpertCount), ("expert_used_count", expertCount(file) ?? 0)] {
            let value = file.metadata["\(architecture).\(key)"]
            guard let count = value?.int, count > 0, count <= limit else {
                throw file.malformed(
                    expected: "1 to \(limit) as \(architecture).\(key)", found: value?.int.map(String.init) ?? "none")
            }
        }
    }

    /// Completes the config of a mixture. Sizes that old files leave out are those of the tensors.
    /// - Throws: ``CheckpointError/refused(file:what:)`` for another kind of router.
    static func addExperts(to config: inout JSONObject, _ file: GGUFFile, _ architecture: String) throws {
        try requireSoftmax(file, architecture)
        let sharedWidth = rows("ffn_gate_shexp", file)
        switch architecture {
        case "granitemoe":
            config["shared_intermediate_size"] = config["shared_intermediate_size"] ?? sharedWidth
            guard config["shared_intermediate_size"]?.int ?? 0 > 0 else { return }
            config["model_type"] = "granitemoeshared"
            config["architectures"] = ["GraniteMoeSharedForCausalLM"]
        case "qwen2moe", "qwen3moe":
            config["moe_intermediate_size"] = config["moe_intermediate_size"] ?? rows("ffn_gate_exps", file)
            config["mlp_only_layers"] = .array(denseLayers(file).map(JSONValue.int))
            // Converters leave it out: llama.cpp knows it of each architecture.
            config["norm_topk_prob"] = config["norm_topk_prob"] ?? .bool(architecture == "qwen3moe")
            guard architecture == "qwen2moe" else { return }
            config["shared_expert_intermediate_size"] = config["shared_expert_intermediate_size"] ?? sharedWidth
            config["qkv_bias"] = .bool(file.info("blk.0.attn_q.bias") != nil)
        default: return
        }
    }

    private static func requireSoftmax(_ file: GGUFFile, _ architecture: String) throws {
        let isSoftmax = [nil, 0, 1].contains(file.metadata["\(architecture).expert_gating_func"]?.int)
        let isUnscaled = [nil, 0, 1].contains(file.metadata["\(architecture).expert_weights_scale"]?.double)
        guard isSoftmax, isUnscaled else {
            let key = isSoftmax ? "expert_weights_scale" : "expert_gating_func"
            let value = file.metadata["\(architecture).\(key)"]?.double ?? 0
            throw CheckpointError.refused(
                file: file.url.path, what: "\(architecture).\(key) \(value) is not supported; experts are weighted by a softmax")
        }
    }

    /// The number of rows of each matrix of the tensor, in the first block that has it.
    private static func rows(_ part: String, _ file: GGUFFile) -> JSONValue? {
        let name = file.names.first { $0.hasBytePrefix("blk.") && $0.hasByteSuffix(".\(part).weight") }
        guard let shape = name.flatMap({ file.info($0)?.shape }), shape.rank >= 2 else { return nil }
        return .int(shape[shape.rank - 2])
    }

    /// Layers with a feed-forward of their own in place of a mixture.
    private static func denseLayers(_ file: GGUFFile) -> [Int] {
        file.names.compactMap { name in
            let parts = name.split(separator: ".")
            guard parts.count == 4, parts[0] == "blk", parts[2] == "ffn_gate", parts[3] == "weight" else { return nil }
            return Int(parts[1])
        }.sorted()
    }
}
