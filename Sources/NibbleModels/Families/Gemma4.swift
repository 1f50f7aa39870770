import NibbleCore

/// Gemma 4: heads of two sizes, values normalized without weights, a number behind each block; mixtures of experts beside a dense
/// feed-forward (A4B), or inputs of their own for every layer and layers that share keys and values (E2B, E4B).
///
///     nibble generate google/gemma-4-31B-it --load-in-4bit --quant-type nf4 "The capital of France is"
enum Gemma4 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let defaults: JSONObject = [
            "vocab_size": 262_144, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 30,
            "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
            "max_position_embeddings": 131_072, "tie_word_embeddings": true, "sliding_window": 512,
            "vocab_size_per_layer_input": 262_144, "hidden_size_per_layer_input": 256,
        ]
        return try Gemma4Model(config.filled(defaults)).architecture()
    }
}

/// One Gemma 4 config, and the tree and description that it gives.
private struct Gemma4Model {
    let base: LlamaLike
    let config: ConfigReader
    /// Of each layer.
    let attentions: [AttentionDescription]
    let isFull: [Bool]
    /// Layers from this one on share keys and values.
    let firstShared: Int
    let rotary: [RotaryDescription]
    let experts: ExpertsDescription?
    /// P, or 0.
    let perLayerWidth: Int

    init(_ config: ConfigReader) throws {
        let bidirectional = try config.string("use_bidirectional_attention", default: "vision")
        try config.require(bidirectional == "vision", "use_bidirectional_attention", "vision or null")
        self.config = config
        base = try LlamaLike(config, "Gemma4", rotary: nil)
        var types = try config.layerTypes(base.layers) { ($0 + 1) % 6 == 0 ? "full_attention" : "sliding_attention" }
        if let last = types.indices.last { types[last] = "full_attention" }
        isFull = types.map { $0 == "full_attention" }
        let shared = try config.int("num_kv_shared_layers", default: 0)
        try config.require(shared == 0 || shared < base.layers, "num_kv_shared_layers", "fewer than the \(base.layers) layers")
        firstShared = base.layers - shared
        perLayerWidth = try config.int("hidden_size_per_layer_input", default: 0)
        experts = try Gemma4Model.experts(config, base.activation.function)
        let geometry = try Gemma4Geometry(config, base, isFull: isFull)
        attentions = try Gemma4Model.attentions(config, geometry, isFull: isFull, firstShared: firstShared)
        rotary = try geometry.rotary()
    }

    private static func attentions(
        _ config: ConfigReader, _ geometry: Gemma4Geometry, isFull: [Bool], firstShared: Int
    ) throws -> [AttentionDescription] {
        let valuesAreKeys = try config.bool("attention_k_eq_v", default: false)
        let window = try config.size("sliding_window")
        return try isFull.indices.map { layer in
            let layout = QueryKeyValueLayout.stacked(
                heads: geometry.heads, keyValueHeads: geometry.keyValueHeads[layer], headSize: geometry.headSizes[layer])
            var attention = AttentionDescription(
                heads: geometry.heads, keyValueHeads: geometry.keyValueHeads[layer], headSize: geometry.headSizes[layer],
                scale: 1, layout: layout)
            attention.rotary = isFull[layer] ? 0 : 1
            attention.window = isFull[layer] ? nil : window
            attention.valuesAreKeys = valuesAreKeys && isFull[layer]
            guard layer >= firstShared else { return attention }
            attention.sharedLayer = isFull[..<firstShared].lastIndex(of: isFull[layer])
            try config.require(attention.sharedLayer != nil, "num_kv_shared_layers", "layers of each type that share nothing")
            return attention
        }
    }

    private static func experts(_ config: ConfigReader, _ activation: Activation) throws -> ExpertsDescription? {
        guard try config.bool("enable_moe_block", default: false) else { return nil }
        var experts = ExpertsDescription(
            count: try config.headCount("num_experts"), topK: try config.headCount("top_k_experts"), normalizesWeights: true,
            activation: activation, width: try config.size("moe_intermediate_size"))
        experts.shared = .apart
        try config.require(experts.topK <= experts.count, "top_k_experts", "at most the \(experts.count) experts")
        return experts
    }

    // MARK: What the modules do

    func architecture() throws -> ModelArchitecture {
        var keys = CheckpointKeys(basePrefix: "model")
        for layer in firstShared..<base.layers {
            for name in ["k_proj.weight", "v_proj.weight", "k_norm.weight", "v_norm.weight"] {
                keys.ignore("layers.\(layer).self_attn.\(name)")
            }
        }
        var head = HeadDescription()
        head.softCap = try config.softCap("final_logit_softcapping")
        return ModelArchitecture(
            modelType: try config.string("model_type", default: ""),
            tree: ModuleTree(
                root: try root(),
                tied: .tied(
                    try config.bool("tie_word_embeddings", default: true), ("lm_head.weight", "model.embed_tokens.weight")),
                noSplitClasses: [
                    "Gemma4TextDecoderLayer", "Gemma4VisionPatchEmbedder", "Gemma4VisionEncoderLayer", "Gemma4AudioLayer",
                ]),
            keys: keys, decoder: decoder(), head: head, vocabularySize: base.vocabulary,
            maximumPositions: try config.optionalPositions("max_position_embeddings"))
    }

    private func decoder() -> StackDescription {
        let feedForward = experts.map(FeedForwardDescription.experts) ?? .gated(base.activation.function)
        var decoder = StackDescription(
            path: "model", width: base.width,
            layers: attentions.map { attention in
                var layer = LayerDescription(attention: attention, feedForward: feedForward)
                layer.outputScaleBuffer = "layer_scalar"
                layer.perLayerActivation = perLayerWidth > 0 ? base.activation.function : nil
                return layer
            })
        decoder.rotary = rotary
        decoder.embeddingScale = Float(base.width).squareRoot()
        decoder.roundsEmbeddingScale = true
        guard perLayerWidth > 0 else { return decoder }
        decoder.perLayer = PerLayerDescription(
            width: perLayerWidth, embeddingScale: Float(perLayerWidth).squareRoot(),
            projectionScale: 1 / Float(base.width).squareRoot(), sumScale: Float(0.5).squareRoot())
        return decoder
    }

    // MARK: Module tree

    private func norm(_ name: String, _ role: Role, _ width: Int? = nil, isAffine: Bool = true) -> ModuleNode {
        rmsNorm(name, width ?? base.width, base.epsilon, isAffine: isAffine, role: role, className: "Gemma4RMSNorm")
    }

    private func table(_ name: String, _ rows: Int, _ width: Int, _ role: Role) -> ModuleNode {
        embedding(
            name, rows, width, role: role, className: "Gemma4TextScaledWordEmbedding",
            buffers: [.init("embed_scale", count: 1, followsLoadDType: true)])
    }

    private func root() throws -> ModuleNode {
        let (blocks, perLayer) = (try attentions.indices.map(block), try perLayerModules())
        return module("", "Gemma4ForCausalLM") {
            module("model", "Gemma4TextModel") {
                table("embed_tokens", base.vocabulary, base.width, .tokenEmbedding)
                ModuleNode("layers", "ModuleList", children: blocks)
                norm("norm", .finalNorm)
                rotaryModule(
                    "rotary_emb", "Gemma4TextRotaryEmbedding",
                    [("full_attention_", rotary[0].rotated), ("sliding_attention_", rotary[1].rotated)])
                perLayer
            }
            linear("lm_head", base.vocabulary, base.width, role: .head)
        }
    }

    private func perLayerModules() throws -> [ModuleNode] {
        guard perLayerWidth > 0 else { return [] }
        let all = base.layers * perLayerWidth
        return [
            table("embed_tokens_per_layer", try config.size("vocab_size_per_layer_input"), all, .perLayerEmbedding),
            linear("per_layer_model_projection", all, base.width, role: .perLayerModelProjection),
            norm("per_layer_projection_norm", .perLayerInputNorm, perLayerWidth),
        ]
    }

    private func block(_ layer: Int) throws -> ModuleNode {
        let isDoubled = try config.bool("use_double_wide_mlp", default: false) && layer >= firstShared && firstShared > 0
        let scalar = ModuleNode.Buffer("layer_scalar", count: 1, isPersistent: true, followsLoadDType: true)
        let attention = attention(attentions[layer], bias: try config.bool("attention_bias", default: false))
        return module("\(layer)", "Gemma4TextDecoderLayer", role: .block, buffers: [scalar]) {
            attention
            base.gated(
                inner: base.inner * (isDoubled ? 2 : 1), role: experts == nil ? .feedForward : .sharedExpert,
                className: "Gemma4TextMLP")
            norm("input_layernorm", .attentionNorm)
            norm("post_attention_layernorm", .attentionOutputNorm)
            norm("pre_feedforward_layernorm", .feedForwardNorm)
            norm("post_feedforward_layernorm", .feedForwardOutputNorm)
            if perLayerWidth > 0 {
                plain("act_fn", base.activation.className)
                linear("per_layer_input_gate", perLayerWidth, base.width, role: .perLayerGate)
                linear("per_layer_projection", base.width, perLayerWidth, role: .perLayerProjection)
                norm("post_per_layer_input_norm", .perLayerOutputNorm)
            }
            if let experts { mixture(experts) }
        }
    }

    private func attention(_ attention: AttentionDescription, bias: Bool) -> ModuleNode {
        let (queries, keys) = (attention.heads * attention.headSize, attention.keyValueHeads * attention.headSize)
        let hasOwnKeys = attention.sharedLayer == nil
        return module("self_attn", "Gemma4TextAttention", role: .selfAttention) {
            linear("q_proj", queries, base.width, bias: bias, role: .query)
            norm("q_norm", .queryNorm, attention.headSize)
            if hasOwnKeys {
                norm("k_norm", .keyNorm, attention.headSize)
                norm("v_norm", .valueNorm, attention.headSize, isAffine: false)
                linear("k_proj", keys, base.width, bias: bias, role: .key)
                if !attention.valuesAreKeys { linear("v_proj", keys, base.width, bias: bias, role: .value) }
            }
            linear("o_proj", base.width, queries, bias: bias, role: .attentionOutput)
        }
    }

    @ModuleBuilder private func mixture(_ experts: ExpertsDescription) -> [ModuleNode] {
        ModuleNode(
            "router", "Gemma4TextRouter", role: .routerScales,
            parameters: [.init("scale", [base.width]), .init("per_expert_scale", [experts.count])],
            children: [
                norm("norm", .routerNorm, isAffine: false), linear("proj", experts.count, base.width, role: .router),
            ])
        base.experts(experts, className: "Gemma4TextExperts")
        norm("post_feedforward_layernorm_1", .sharedExpertOutputNorm)
        norm("post_feedforward_layernorm_2", .expertsOutputNorm)
        norm("pre_feedforward_layernorm_2", .expertsNorm)
    }
}

/// Head sizes and key/value heads of each layer: those of the config, with what single layers have of their own.
private struct Gemma4Geometry {
    let config: ConfigReader
    let heads: Int
    var headSizes: [Int]
    var keyValueHeads: [Int]
    private let isFull: [Bool]

    init(_ config: ConfigReader, _ base: LlamaLike, isFull: [Bool]) throws {
        self.config = config
        self.isFull = isFull
        heads = base.heads
        headSizes = isFull.map { _ in base.headSize }
        keyValueHeads = isFull.map { _ in base.keyValueHeads }
        if let layers = try config.object("per_layer_config") {
            try read(layers)
        } else {
            try readGlobal()
        }
        for layer in isFull.indices {
            try config.require(heads % keyValueHeads[layer] == 0, "num_key_value_heads", "divisors of the \(heads) heads")
        }
    }

    /// Fields of single layers, by index.
    private mutating func read(_ layers: ConfigReader) throws {
        for name in layers.values.keys.sorted() {
            guard let layer = Int(name), isFull.indices.contains(layer), let fields = try layers.object(name) else {
                throw ModelError.wrongField(
                    "per_layer_config", file: config.file, expected: "objects of the layers 0 to \(isFull.count - 1)",
                    found: "\"\(name)\"")
            }
            headSizes[layer] = try fields.size("head_dim", default: headSizes[layer])
            keyValueHeads[layer] = try fields.headCount("num_key_value_heads", default: keyValueHeads[layer])
        }
    }

    /// The fields of published configs, which concern full layers.
    private mutating func readGlobal() throws {
        let headSize = try config.size("global_head_dim", default: 512)
        let own = try config.bool("attention_k_eq_v", default: false) ? config.value("num_global_key_value_heads") : nil
        for layer in isFull.indices where isFull[layer] {
            headSizes[layer] = headSize
            if own != nil { keyValueHeads[layer] = try config.headCount("num_global_key_value_heads") }
        }
    }

    /// The rotary embeddings of full and of windowed layers.
    func rotary() throws -> [RotaryDescription] {
        let parameters = try config.object("rope_parameters")
        let defaults: [(type: String, fields: JSONObject)] = [
            ("full_attention", ["rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0]),
            ("sliding_attention", ["rope_type": "default", "rope_theta": 10000.0]),
        ]
        return try defaults.map { type, fields in
            let sizes = Set(isFull.indices.filter { isFull[$0] == (type == "full_attention") }.map { headSizes[$0] })
            try config.require(sizes.count <= 1, "per_layer_config", "one head size for all layers of a type")
            let size = try sizes.first ?? config.size("head_dim")
            let given = parameters == nil ? fields : try parameters?.object(type)?.values ?? [:]
            return try config.rotary(headSize: size, fields: config.nested(given), .init())
        }
    }
}
