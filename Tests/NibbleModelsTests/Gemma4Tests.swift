import NibbleCore
import NibbleModels
import Testing

/// Gemma 4 by its config: geometry that differs by layer, layers that share keys and values, and what configs get wrong.
@Suite struct Gemma4Tests {
    private static func layerTypes(_ layers: Int, every period: Int) -> JSONValue {
        .array((0..<layers).map { .string(($0 + 1) % period == 0 ? "full_attention" : "sliding_attention") })
    }

    private static let rotaryFields: JSONValue = [
        "full_attention": ["partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0, "rope_type": "proportional"],
        "sliding_attention": ["rope_theta": 10000.0, "rope_type": "default"],
    ]

    /// The fields of a published config that its sizes follow from.
    private static func config(_ fields: JSONObject, layers: Int, every period: Int) -> JSONObject {
        var config: JSONObject = [
            "model_type": "gemma4_text", "vocab_size": 262_144, "vocab_size_per_layer_input": 262_144, "head_dim": 256,
            "global_head_dim": 512, "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0, "rms_norm_eps": 1e-6,
            "final_logit_softcapping": 30.0, "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": true,
            "attention_k_eq_v": false, "enable_moe_block": false, "use_double_wide_mlp": false, "rope_parameters": rotaryFields,
            "use_bidirectional_attention": .null, "num_global_key_value_heads": .null,
        ]
        config["num_hidden_layers"] = .int(layers)
        config["layer_types"] = layerTypes(layers, every: period)
        for (key, value) in fields { config[key] = value }
        return config
    }

    private static let large: JSONObject = config(
        [
            "hidden_size": 5376, "intermediate_size": 21504, "num_attention_heads": 32, "num_key_value_heads": 16,
            "num_global_key_value_heads": 4, "attention_k_eq_v": true, "sliding_window": 1024,
            "use_bidirectional_attention": "vision",
        ], layers: 60, every: 6)
    private static let mixture: JSONObject = config(
        [
            "hidden_size": 2816, "intermediate_size": 2112, "num_attention_heads": 16, "num_key_value_heads": 8,
            "num_global_key_value_heads": 2, "attention_k_eq_v": true, "sliding_window": 1024, "enable_moe_block": true,
            "num_experts": 128, "top_k_experts": 8, "moe_intermediate_size": 704,
        ], layers: 30, every: 6)
    private static let small: JSONObject = config(
        [
            "hidden_size": 1536, "intermediate_size": 6144, "num_attention_heads": 8, "num_key_value_heads": 1,
            "sliding_window": 512, "hidden_size_per_layer_input": 256, "num_kv_shared_layers": 20, "use_double_wide_mlp": true,
        ], layers: 35, every: 5)
    private static let medium: JSONObject = config(
        [
            "hidden_size": 2560, "intermediate_size": 10240, "num_attention_heads": 8, "num_key_value_heads": 2,
            "sliding_window": 512, "hidden_size_per_layer_input": 256, "num_kv_shared_layers": 18,
        ], layers: 42, every: 6)

    private static func architecture(_ config: JSONObject) throws -> ModelArchitecture {
        try ModelRegistry.architecture(ConfigReader(config))
    }

    /// The sizes that the models are published with: parameters of the text model in billions, embeddings included.
    @Test(
        "published configs have the published number of parameters",
        arguments: [(large, 30.7), (mixture, 25.2), (small, 4.65), (medium, 7.5)])
    func published(config: JSONObject, billions: Double) throws {
        let architecture = try Self.architecture(config)
        let tied = Set(architecture.tree.tied.map(\.target))
        let count = architecture.tree.parameters.filter { !tied.contains($0.path) }.reduce(0) { $0 + $1.shape.count }
        #expect(abs(Double(count) / 1e9 - billions) < 0.02 * billions, "\(count)")
        #expect(architecture.warnings.isEmpty)
    }

    @Test("full layers have heads of their own size, and values that are keys")
    func geometry() throws {
        let layers = try Self.architecture(Self.large).decoder.layers.map(\.attention)
        let (windowed, full) = (layers[4], layers[5])
        #expect(windowed.headSize == 256 && windowed.keyValueHeads == 16 && windowed.window == 1024 && !windowed.valuesAreKeys)
        #expect(full.headSize == 512 && full.keyValueHeads == 4 && full.window == nil && full.valuesAreKeys)
        #expect(layers.allSatisfy { $0.scale == 1 && $0.sharedLayer == nil })
    }

    @Test("the last layers of small models read the keys and values of the last own ones of their type")
    func sharing() throws {
        let architecture = try Self.architecture(Self.small)
        let shared = architecture.decoder.layers.map(\.attention.sharedLayer)
        #expect(shared[..<15].allSatisfy { $0 == nil })
        #expect(shared[15...] == (15..<35).map { ($0 + 1) % 5 == 0 ? 14 : 13 }[...])
        let names = architecture.tree.parameters.map(\.path)
        #expect(!names.contains("model.layers.15.self_attn.k_proj.weight"))
        // Published files hold the projections that are never read.
        #expect(architecture.keys.isIgnored("model.layers.15.self_attn.k_proj.weight"))
        #expect(!architecture.keys.isIgnored("model.layers.14.self_attn.k_proj.weight"))
        let widths = architecture.tree.parameters.filter { $0.path.hasSuffix("mlp.up_proj.weight") }.map { $0.shape[0] }
        #expect(widths == (0..<35).map { $0 < 15 ? 6144 : 12288 })
    }

    @Test("what single layers have of their own is read by index, as transformers writes it")
    func perLayerConfig() throws {
        var config = Self.large
        config["per_layer_config"] = ["5": ["head_dim": 128, "num_key_value_heads": 2], "11": ["head_dim": 128]]
        config["num_hidden_layers"] = 12
        config["layer_types"] = Self.layerTypes(12, every: 6)
        let layers = try Self.architecture(config).decoder.layers.map(\.attention)
        #expect(layers[5].headSize == 128 && layers[5].keyValueHeads == 2)
        #expect(layers[11].headSize == 128 && layers[11].keyValueHeads == 16)
        #expect(layers[0].headSize == 256)
    }

    @Test("proportional rotary embeddings rotate the first frequencies of a whole head")
    func proportional() throws {
        let rotary = try Self.architecture(Self.large).decoder.rotary
        let frequencies = rotary[0].frequencies(length: 1).inverse
        #expect(frequencies.count == 256 && frequencies[64...].allSatisfy { $0 == 0 })
        #expect(frequencies[0] == 1 && abs(frequencies[63] - Float(0.033_376)) < 1e-5)
        #expect(rotary[1].rotated == 256 && rotary[1].frequencies(length: 1).inverse.allSatisfy { $0 > 0 })
    }

    @Test(
        "configs that mean nothing are refused by field",
        arguments: [
            ("num_kv_shared_layers", 60), ("use_bidirectional_attention", "all"), ("per_layer_config", ["60": [:]]),
            ("per_layer_config", ["0": ["head_dim": 0]]), ("per_layer_config", ["0": ["head_dim": 64]]),
            ("num_global_key_value_heads", 3), ("hidden_size_per_layer_input", -1), ("sliding_window", 0),
            ("rope_parameters", ["full_attention": ["rope_type": "proportional", "partial_rotary_factor": 2]]),
            ("rope_parameters", ["full_attention": ["rope_type": "proportional", "factor": 0]]),
        ] as [(String, JSONValue)])
    func refused(field: String, value: JSONValue) throws {
        var config = Self.large
        config[field] = value
        #expect(throws: ModelError.self) { try Self.architecture(config) }
    }

    @Test("a shared layer without an own one of its type before it is refused")
    func nothingToShare() throws {
        var config = Self.large
        config["num_kv_shared_layers"] = 56
        #expect(throws: ModelError.self) { try Self.architecture(config) }
    }
}
