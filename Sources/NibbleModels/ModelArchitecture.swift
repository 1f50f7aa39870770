import NibbleCore

/// A model without weights: its config as a module tree and a description of what the modules do.
package struct ModelArchitecture: Sendable {
    package let modelType: String
    package let tree: ModuleTree
    package fileprivate(set) var keys: CheckpointKeys
    package let decoder: StackDescription
    package let encoder: StackDescription?
    package let head: HeadDescription
    /// V
    package let vocabularySize: Int
    /// The number of positions the model was made for, where the config says so. Rotary, linear and relative positions go on
    /// beyond it.
    package let maximumPositions: Int?
    /// Warnings about the config: fields that have no effect.
    package fileprivate(set) var warnings: [String] = []

    package init(
        modelType: String, tree: ModuleTree, keys: CheckpointKeys, decoder: StackDescription, encoder: StackDescription? = nil,
        head: HeadDescription = .init(), vocabularySize: Int, maximumPositions: Int? = nil
    ) {
        self.modelType = modelType
        self.tree = tree
        self.keys = keys
        self.decoder = decoder
        self.encoder = encoder
        self.head = head
        self.vocabularySize = vocabularySize
        self.maximumPositions = maximumPositions
    }
}

extension ModelArchitecture {
    /// The same model with other names in its checkpoint.
    package func naming(_ keys: CheckpointKeys) -> ModelArchitecture {
        var architecture = self
        architecture.keys = keys
        return architecture
    }
}

/// Reads a family's `config.json`.
package typealias ArchitectureReader = @Sendable (ConfigReader) throws -> ModelArchitecture

/// The families Nibble runs, by `model_type`.
package enum ModelRegistry {
    static let readers: [String: ArchitectureReader] = [
        "arcee": Arcee.architecture,
        "bamba": Bamba.architecture,
        "bart": Bart.architecture,
        "biogpt": BioGPT.architecture,
        "blenderbot": Blenderbot.architecture,
        "bloom": Bloom.architecture,
        "codegen": CodeGen.architecture,
        "cohere": Cohere.architecture,
        "cohere2": Cohere2.architecture,
        "cohere2_moe": Cohere2MoE.architecture,
        "cwm": CWM.architecture,
        "dots1": Dots1.architecture,
        "ernie4_5": Ernie45.architecture,
        "ernie4_5_moe": Ernie45MoE.architecture,
        "exaone": Exaone.architecture,
        "exaone4": Exaone4.architecture,
        "exaone_moe": ExaoneMoE.architecture,
        "falcon": Falcon.architecture,
        "falcon_h1": FalconH1.architecture,
        "flex_olmo": FlexOLMo.architecture,
        "gemma": Gemma.architecture,
        "gemma2": Gemma2.architecture,
        "gemma3_text": Gemma3.architecture,
        "gemma4_text": Gemma4.architecture,
        "glm": GLM.architecture,
        "glm4": GLM4.architecture,
        "glm4_moe": GLM4MoE.architecture,
        "gpt2": GPT2.architecture,
        "gpt_bigcode": GPTBigCode.architecture,
        "gpt_neo": GPTNeo.architecture,
        "gpt_neox": GPTNeoX.architecture,
        "gpt_oss": GPTOSS.architecture,
        "gptj": GPTJ.architecture,
        "granite": Granite.architecture,
        "granitemoe": GraniteMoE.architecture,
        "granitemoehybrid": GraniteMoEHybrid.architecture,
        "granitemoeshared": GraniteMoE.sharedArchitecture,
        "helium": Helium.architecture,
        "hunyuan_v1_dense": HunYuan.architecture,
        "hunyuan_v1_moe": HunYuanMoE.architecture,
        "hyperclovax": HyperCLOVAX.architecture,
        "internlm2": InternLM2.architecture,
        "internlm3": Llama.internLM3Architecture,
        "iquestcoder": Llama.iquestCoderArchitecture,
        "jais2": Jais2.architecture,
        "lfm2": LFM2.architecture,
        "lfm2_moe": LFM2.mixtureArchitecture,
        "llama": Llama.architecture,
        "m2m_100": M2M100.architecture,
        "mamba2": Mamba2.architecture,
        "marian": Marian.architecture,
        "mbart": MBart.architecture,
        "minimax_m2": MiniMaxM2.architecture,
        "ministral": Ministral.architecture,
        "ministral3": Ministral3.architecture,
        "mistral": Mistral.architecture,
        "mixtral": Mixtral.architecture,
        "mpt": MPT.architecture,
        "mt5": T5.architecture,
        "nemotron": Nemotron.architecture,
        "nemotron_h": NemotronH.architecture,
        "olmo": OLMo.architecture,
        "olmo2": OLMo2.architecture,
        "olmo3": OLMo3.architecture,
        "olmoe": OLMoE.architecture,
        "openai-gpt": OpenAIGPT.architecture,
        "opt": OPT.architecture,
        "pegasus": Pegasus.architecture,
        "persimmon": Persimmon.architecture,
        "phi": Phi.architecture,
        "phi3": Phi3.architecture,
        "qwen2": Qwen2.architecture,
        "qwen2_moe": Qwen2.mixtureArchitecture,
        "qwen3": Qwen3.architecture,
        "qwen3_5_moe_text": Qwen35.mixtureArchitecture,
        "qwen3_5_text": Qwen35.architecture,
        "qwen3_moe": Qwen3.mixtureArchitecture,
        "qwen3_next": Qwen3Next.architecture,
        "seed_oss": SeedOSS.architecture,
        "smollm3": SmolLM3.architecture,
        "solar_open": SolarOpen.architecture,
        "stablelm": StableLM.architecture,
        "starcoder2": Starcoder2.architecture,
        "t5": T5.architecture,
        "umt5": T5.architecture,
        "vaultgemma": Gemma2.vaultArchitecture,
        "xglm": XGLM.architecture,
    ]

    /// Supported `model_type` words, sorted.
    package static var modelTypes: [String] { readers.keys.sorted() }

    /// - Parameter root: the config as the file has it; of a multimodal model the text part is taken.
    /// - Throws: ``ModelError/unknownModelType(_:file:known:)``, or the ``ModelError`` of a field, a size or the description.
    package static func architecture(_ root: ConfigReader) throws -> ModelArchitecture {
        let tower = TextTower(root.values)
        let config = tower.map { ConfigReader($0.config, file: root.file) } ?? root
        let type = try config.optionalString("model_type")
        guard let type, let reader = readers[type] else {
            throw ModelError.unknownModelType(type, file: config.file, known: modelTypes)
        }
        var architecture = try reader(config)
        try check(architecture.tree, config)
        try architecture.check()
        architecture.warnings = config.warnings
        guard let tower else { return architecture }
        architecture.keys = tower.keys(architecture.keys)
        architecture.warnings.insert(tower.warning(config.file, type), at: 0)
        return architecture
    }

    /// Bounds the number of elements of all parameters and buffers. Everything that adds up sizes relies on it.
    private static func check(_ tree: ModuleTree, _ config: ConfigReader) throws {
        let limit = 1 << 48
        var total = 0
        for parameter in tree.parameters {
            let count = Shape(validating: parameter.shape.dimensions)?.count ?? limit
            total += min(count, limit)
            if total >= limit { break }
        }
        for buffer in tree.modules.flatMap(\.node.buffers) where total < limit { total += min(buffer.count, limit) }
        guard total < limit else {
            throw ModelError.wrongField(
                "config", file: config.file, expected: "sizes that make fewer than 2⁴⁸ parameters", found: "more")
        }
    }
}

extension ModelArchitecture {
    /// Positions that the decoder has embeddings for; `nil` where they are not a table.
    package var positionLimit: Int? {
        switch decoder.positions {
        case .none: nil
        case .sinusoidal(let positions, _): positions
        case .learned(let offset):
            tree.module(at: decoder.path)?.first(.positionEmbedding)?.node.parameters.first.map { max($0.shape[0] - offset, 0) }
        }
    }
}

extension Array where Element == (target: String, source: String) {
    /// `pairs` if the config ties its embeddings.
    static func tied(_ isTied: Bool, _ pairs: (String, String)...) -> [(target: String, source: String)] {
        isTied ? pairs.map { (target: $0.0, source: $0.1) } : []
    }
}
