package import NibbleCore

/// The text model within a multimodal checkpoint: its config, and what its tensors are called.
///
/// A config with a `text_config` is that of a wrapper; its text part is a config of its own. Qwen 2-VL's first configs keep the text
/// fields at the root.
package struct TextTower: Sendable {
    /// As the text class writes it.
    package let config: JSONObject
    /// The wrapper's `model_type`.
    package let wrapperType: String

    /// `nil` if the config is that of a text model.
    package init?(_ root: JSONObject) {
        guard let type = root["model_type"]?.string else { return nil }
        var config: JSONObject
        if let text = root["text_config"]?.object {
            config = TextTower.merged(text, root)
        } else if TextTower.rootTypes.contains(type), root["vision_config"] != nil {
            config = root
            config["vision_config"] = nil
        } else {
            return nil
        }
        let textType = config["model_type"]?.string ?? type
        let family = TextTower.families[textType] ?? textType
        config["model_type"] = .string(family)
        config["architectures"] = TextTower.classes[family].map { .array([.string($0)]) }
        for (key, value) in TextTower.defaults[family] ?? [:] where config[key] == nil { config[key] = value }
        TextTower.makeRotaryPlain(&config)
        if let quantization = config["quantization_config"]?.object {
            config["quantization_config"] = .object(TextTower.renamingSkips(quantization))
        }
        self.config = config
        wrapperType = type
    }

    /// Wrappers whose text fields may lie at the root.
    private static let rootTypes: Set = ["qwen2_vl", "qwen2_5_vl"]

    /// Families by the text part's `model_type`, where the two differ.
    private static let families = [
        "qwen2_vl": "qwen2", "qwen2_vl_text": "qwen2", "qwen2_5_vl": "qwen2", "qwen2_5_vl_text": "qwen2",
        "qwen3_vl_text": "qwen3", "qwen3_vl_moe_text": "qwen3_moe", "gemma3": "gemma3_text",
        "gemma4": "gemma4_text",
    ]

    /// The text classes, for checkpoints that are written.
    private static let classes = [
        "cohere2": "Cohere2ForCausalLM", "exaone4": "Exaone4ForCausalLM", "gemma3_text": "Gemma3ForCausalLM",
        "gemma4_text": "Gemma4ForCausalLM",
        "granite": "GraniteForCausalLM", "hyperclovax": "HyperCLOVAXForCausalLM", "llama": "LlamaForCausalLM",
        "ministral3": "Ministral3ForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM",
        "qwen3": "Qwen3ForCausalLM", "qwen3_5_text": "Qwen3_5ForCausalLM", "qwen3_5_moe_text": "Qwen3_5MoeForCausalLM",
        "qwen3_moe": "Qwen3MoeForCausalLM",
    ]

    /// What the classes' configs default to, for text parts that leave it out.
    private static let defaults: [String: JSONObject] = [
        "gemma3_text": [
            "vocab_size": 262_208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
            "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 131_072,
            "sliding_window": 4096, "query_pre_attn_scalar": 256, "hidden_activation": "gelu_pytorch_tanh",
            "tie_word_embeddings": true,
        ],
        "llama": [
            "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
            "num_attention_heads": 32, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "hidden_act": "silu",
        ],
        "mistral": [
            "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131_072, "rms_norm_eps": 1e-6,
            "hidden_act": "silu",
        ],
    ]

    /// The text part, with what only the root says.
    private static func merged(_ text: JSONObject, _ root: JSONObject) -> JSONObject {
        var config = text
        // The wrapper ties its head, whatever its text part says.
        if let tie = root["tie_word_embeddings"], !tie.isNull { config["tie_word_embeddings"] = tie }
        let shared = [
            "quantization_config", "bos_token_id", "eos_token_id", "pad_token_id", "transformers_version",
            "transformers_weights",
        ]
        for key in shared where config[key] == nil { config[key] = root[key] }
        if config["dtype"] == nil, config["torch_dtype"] == nil {
            config["dtype"] = root["dtype"] ?? root["torch_dtype"]
        }
        return config
    }

    /// Rotary embeddings of three position streams (mrope) are plain ones where all three count the text.
    private static func makeRotaryPlain(_ config: inout JSONObject) {
        for key in ["rope_scaling", "rope_parameters"] {
            guard var rotary = config[key]?.object else { continue }
            for name in ["type", "rope_type"] where rotary[name]?.string == "mrope" { rotary[name] = "default" }
            rotary["mrope_section"] = nil
            rotary["mrope_interleaved"] = nil
            config[key] = .object(rotary)
        }
    }
}

// MARK: Names

extension TextTower {
    /// Parts of a wrapper that its text model does not have.
    private static let otherParts = [
        "vision_tower", "vision_model", "visual", "model.visual", "model.vision_tower", "multi_modal_projector",
        "model.multi_modal_projector", "mm_projector", "audio_tower", "model.audio_tower", "embed_vision", "model.embed_vision",
        "embed_audio", "model.embed_audio", "image_newline", "model.image_newline",
    ]

    /// The text model's name of a tensor or module: wrappers of transformers 4 and 5 nest it in two ways.
    private static func textName(_ name: String) -> String {
        for (wrapped, plain) in [
            ("language_model.model.", "model."), ("model.language_model.", "model."), ("language_model.lm_head", "lm_head"),
        ] where name.utf8.starts(with: wrapped.utf8) {
            return plain + String(decoding: name.utf8.dropFirst(wrapped.utf8.count), as: UTF8.self)
        }
        return name
    }

    private static func renamingSkips(_ quantization: JSONObject) -> JSONObject {
        var quantization = quantization
        for key in ["llm_int8_skip_modules", "modules_to_not_convert"] {
            guard let names = quantization[key]?.array else { continue }
            quantization[key] = .array(names.map { $0.string.map { .string(textName($0)) } ?? $0 })
        }
        return quantization
    }

    /// How the wrapper's tensors map to the text model, whose own tensors are named by `keys`.
    func keys(_ keys: CheckpointKeys) -> CheckpointKeys {
        var keys = keys
        let rename = keys.rename
        keys.rename = { rename(TextTower.textName($0)) }
        keys.ignoredPrefixes += TextTower.otherParts
        return keys
    }

    func warning(_ file: String, _ type: String) -> String {
        "\(file): of the \(wrapperType) model only the text part (\(type)) is loaded; images, video and sound are not supported"
    }
}
