import NibbleCore
import NibbleModels
import Testing

@Suite struct TextTowerTests {
    private static let text: JSONObject = [
        "model_type": "llama", "vocab_size": 32, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "rms_norm_eps": 1e-5,
    ]

    private func wrapper(_ change: (inout JSONObject) -> Void = { _ in }) -> JSONObject {
        var root: JSONObject = [
            "model_type": "llava", "text_config": .object(Self.text), "vision_config": ["hidden_size": 4],
            "torch_dtype": "float16",
            "tie_word_embeddings": false,
        ]
        change(&root)
        return root
    }

    @Test("the text part is a config of its own, with what only the root says")
    func config() throws {
        let tower = try #require(TextTower(wrapper { $0["eos_token_id"] = 7 }))
        #expect(tower.wrapperType == "llava" && tower.config["model_type"]?.string == "llama")
        #expect(tower.config["eos_token_id"]?.int == 7 && tower.config["dtype"]?.string == "float16")
        #expect(tower.config["architectures"]?.array?.compactMap(\.string) == ["LlamaForCausalLM"])
        #expect(tower.config["vision_config"] == nil && tower.config["text_config"] == nil)
    }

    @Test("a text model is no wrapper", arguments: [text, [:], ["model_type": "qwen2_vl"]] as [JSONObject])
    func plain(config: JSONObject) { #expect(TextTower(config) == nil) }

    @Test(
        "the rule holds for every wrapper whose text part is a family that runs",
        arguments: [
            ("llava_next", "mistral", "mistral"), ("aya_vision", "cohere2", "cohere2"), ("exaone4_5", "exaone4", "exaone4"),
            ("hyperclovax_vision_v2", "hyperclovax", "hyperclovax"), ("granite_vision", "granite", "granite"),
            ("qwen2_vl", "qwen2_vl_text", "qwen2"), ("qwen2_5_vl", "qwen2_5_vl_text", "qwen2"),
            ("qwen3_vl", "qwen3_vl_text", "qwen3"), ("qwen3_vl_moe", "qwen3_vl_moe_text", "qwen3_moe"),
            ("gemma3", "gemma3_text", "gemma3_text"), ("mistral3", "ministral3", "ministral3"),
        ])
    func wrappers(wrapper: String, text: String, family: String) throws {
        let root = self.wrapper {
            $0["model_type"] = .string(wrapper)
            $0["text_config"] = ["model_type": .string(text)]
        }
        let tower = try #require(TextTower(root))
        #expect(tower.wrapperType == wrapper && tower.config["model_type"]?.string == family)
        #expect(tower.config["architectures"]?.array?.count == 1 && ModelRegistry.modelTypes.contains(family))
    }

    @Test("what a thin text part leaves out is the class's default")
    func defaults() throws {
        let tower = try #require(TextTower(wrapper { $0["text_config"] = ["model_type": "llama", "vocab_size": 32064] }))
        #expect(tower.config["vocab_size"]?.int == 32064 && tower.config["hidden_size"]?.int == 4096)
    }

    @Test(
        "both layouts of names are the text model's",
        arguments: [
            ("language_model.model.norm.weight", "model.norm.weight"), ("model.language_model.norm.weight", "model.norm.weight"),
            ("language_model.lm_head.weight", "lm_head.weight"), ("lm_head.weight", "lm_head.weight"),
        ])
    func names(file: String, parameter: String) throws {
        let keys = try ModelRegistry.architecture(ConfigReader(wrapper())).keys
        #expect(keys.parameter(for: file) { $0 == parameter } == parameter)
    }

    @Test("tensors of the other parts have no meaning, and those of the text do")
    func ignored() throws {
        let keys = try ModelRegistry.architecture(ConfigReader(wrapper())).keys
        for name in ["vision_tower.a.weight", "multi_modal_projector.linear_1.bias", "model.visual.b", "image_newline"] {
            #expect(keys.isIgnored(name), "\(name)")
        }
        for name in ["model.norm.weight", "vision_towers.a", "language_model.vision_tower"] {
            #expect(!keys.isIgnored(name), "\(name)")
        }
    }

    @Test("modules that are not quantized are named as the text model names them")
    func skips() throws {
        let quantization: JSONObject = [
            "quant_method": "bitsandbytes",
            "llm_int8_skip_modules": ["language_model.lm_head", "vision_tower", "model.language_model.norm"],
        ]
        let tower = try #require(TextTower(wrapper { $0["quantization_config"] = .object(quantization) }))
        let names = tower.config["quantization_config"]?["llm_int8_skip_modules"]?.array?.compactMap(\.string)
        #expect(names == ["lm_head", "vision_tower", "model.norm"])
    }

    @Test("one warning says what is left out, and an unknown text part is refused by its type")
    func messages() throws {
        let warnings = try ModelRegistry.architecture(ConfigReader(wrapper())).warnings
        #expect(warnings.count == 1 && warnings[0].contains("llava") && warnings[0].contains("llama"))
        let unknown = wrapper { $0["text_config"] = ["model_type": "nonsense"] }
        #expect(throws: ModelError.unknownModelType("nonsense", file: "config.json", known: ModelRegistry.modelTypes)) {
            try ModelRegistry.architecture(ConfigReader(unknown))
        }
    }
}
