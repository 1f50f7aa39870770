import NibbleCore

/// The decoder that Llama made common: rotary positions, grouped heads, a gated feed-forward, RMS norms before each of the
/// two. A family makes one, says what differs, and asks for its ``architecture(_:)``.
struct LlamaLike {
    let config: ConfigReader
    /// How the reference's class names begin: `Qwen2` in `Qwen2ForCausalLM`.
    let prefix: String
    let width, layers, heads, keyValueHeads, headSize, inner, vocabulary: Int
    let activation: NamedActivation
    /// Of RMS norms.
    let epsilon: Float

    // The module tree
    var modelClass: String
    var queryKeyValueBias = false
    var outputBias = false
    var feedForwardBias = false
    /// A norm of the residual stream.
    var norm: (_ name: String, _ role: Role) -> ModuleNode
    /// After `self_attn` and `mlp` in a block: norms, dropouts.
    var blockEnd: [ModuleNode]
    /// The last modules of an attention: norms of queries and keys.
    var attentionEnd: [ModuleNode] = []
    var embeddingClass = "Embedding"
    var embeddingBuffers: [ModuleNode.Buffer] = []
    /// The feed-forward of a layer, where it is not the gated one.
    var feedForward: ((_ layer: Int) -> ModuleNode)?
    /// The modules of a block before its attention.
    var beforeAttention: [ModuleNode] = []
    /// The modules of a block after its attention, where they are not the feed-forward and ``blockEnd``.
    var afterAttention: (() -> [ModuleNode])?
    /// The token mixer of a layer, where it is not the usual attention.
    var mixer: ((_ layer: Int) -> ModuleNode?)?
    /// Each head's query is followed by a gate of its output.
    var gatesAttention = false
    var finalNorm = "norm"
    var rotaryName = "rotary_emb"
    /// Beginning of the name of the rotary module's class.
    var rotaryPrefix: String
    var rotaryPrecedesNorm = false
    /// Classes that are never divided, beside the block's.
    var otherNoSplitClasses: Set<String> = []
    /// Whether the attention is the last module of a block instead of the first.
    var attentionIsLast = false
    /// Parameters of every attention besides its projections and norms.
    var attentionParameters: [ModuleNode.Parameter] = []
    /// As of ``ModuleTree``.
    var alwaysFloat32: [String] = []
    var keepInFloat32: [String] = []
    var headBias = false
    /// Where each layer type has a rotary embedding of its own.
    var rotaryLayerTypes: [String] = []

    // What the modules do
    var rotary: [RotaryDescription]
    var blocks: [LayerDescription]
    var embeddingScale: Float = 1
    var roundsEmbeddingScale = false
    var head = HeadDescription()
    var keys = CheckpointKeys(basePrefix: "model")

    /// - Parameter convention: how the rotary fields are read; `nil` where the family sets ``rotary`` itself.
    init(_ config: ConfigReader, _ prefix: String, rotary convention: RotaryConvention? = .init()) throws {
        let width = try config.size("hidden_size")
        let heads = try config.headCount("num_attention_heads")
        let headSize = try config.optionalSize("head_dim") ?? config.headSize(width: width, heads: heads)
        let keyValueHeads = try config.headCount("num_key_value_heads", default: heads)
        try config.require(heads % keyValueHeads == 0, "num_key_value_heads", "a divisor of the \(heads) heads")
        let inner = try config.size("intermediate_size")
        let activation = try config.activation("hidden_activation", "hidden_act", default: "silu")
        let epsilon = try config.float("rms_norm_eps", default: 1e-6)

        self.config = config
        self.prefix = prefix
        (self.width, self.heads, self.headSize, self.keyValueHeads) = (width, heads, headSize, keyValueHeads)
        (self.inner, self.activation, self.epsilon) = (inner, activation, epsilon)
        layers = try config.layerCount("num_hidden_layers")
        vocabulary = try config.size("vocab_size")
        modelClass = "\(prefix)Model"
        rotaryPrefix = prefix
        norm = { rmsNorm($0, width, epsilon, role: $1, className: "\(prefix)RMSNorm") }
        blockEnd = [norm("input_layernorm", .attentionNorm), norm("post_attention_layernorm", .feedForwardNorm)]

        rotary = try convention.map { [try config.rotary(headSize: headSize, $0)] } ?? []
        var attention = AttentionDescription(heads: heads, keyValueHeads: keyValueHeads, headSize: headSize)
        attention.rotary = 0
        let block = LayerDescription(attention: attention, feedForward: .gated(activation.function))
        blocks = Array(repeating: block, count: layers)
    }

    /// Attention of layers for which `isWindowed` holds sees the last `sliding_window` keys.
    @inline(never)
    mutating func slide(where isWindowed: (_ layer: Int) -> Bool = { _ in true }) throws {
        guard let window = try config.optionalSize("sliding_window") else { return }
        for layer in blocks.indices where isWindowed(layer) { blocks[layer].attention.window = window }
    }

    /// As ``slide(where:)``, by `layer_types`, or `isWindowed` of a layer where the config has none.
    /// - Returns: whether each layer has a window.
    @discardableResult
    mutating func slideByTypes(default isWindowed: (_ layer: Int) -> Bool) throws -> [Bool] {
        let types = try config.layerTypes(layers) { isWindowed($0) ? "sliding_attention" : "full_attention" }
        let windowed = types.map { $0 == "sliding_attention" }
        try slide { windowed[$0] }
        return windowed
    }

    /// As ``slide(where:)``, by `layer_types`; without them the layers from `max_window_layers` on, or those that
    /// `isWindowed` names. Only if windows are used.
    mutating func slideByLayerTypes(default isWindowed: ((_ layer: Int, _ limit: Int) -> Bool) = { $0 >= $1 }) throws {
        guard try config.bool("use_sliding_window", default: false) else { return }
        let limit = try config.int("max_window_layers", default: 28)
        let types = try config.layerTypes(layers) { isWindowed($0, limit) ? "sliding_attention" : "full_attention" }
        try slide { types[$0] == "sliding_attention" }
    }

    @inline(never)
    mutating func forEachBlock(_ change: (inout LayerDescription) -> Void) {
        for layer in blocks.indices { change(&blocks[layer]) }
    }

    /// down(activation(gate x) ⊙ up x), `inner` wide.
    func gated(
        _ name: String = "mlp", inner: Int? = nil, role: Role = .feedForward, className: String? = nil
    ) -> ModuleNode {
        let inner = inner ?? self.inner
        return module(name, className ?? "\(prefix)MLP", role: role) {
            linear("gate_proj", inner, width, bias: feedForwardBias, role: .gate)
            linear("up_proj", inner, width, bias: feedForwardBias, role: .up)
            linear("down_proj", width, inner, bias: feedForwardBias, role: .down)
            plain("act_fn", activation.className)
        }
    }

    /// As ``gated(_:inner:role:className:)`` with gate and up in one projection.
    func gatedFused(_ name: String, _ className: String) -> ModuleNode {
        module(name, className, role: .feedForward) {
            linear("gate_up_proj", 2 * inner, width, role: .gateUp)
            linear("down_proj", width, inner, role: .down)
            plain("activation_fn", activation.className)
        }
    }

    /// Makes the feed-forward of every layer down(activation(up x)).
    mutating func useUngatedFeedForward() {
        let activation = activation.function
        feedForward = { [self] _ in
            module("mlp", "\(prefix)MLP", role: .feedForward) {
                linear("up_proj", inner, width, bias: feedForwardBias, role: .up)
                linear("down_proj", width, inner, bias: feedForwardBias, role: .down)
                plain("act_fn", self.activation.className)
            }
        }
        forEachBlock { $0.feedForward = .plain(activation) }
    }

    private var attention: ModuleNode {
        module("self_attn", "\(prefix)Attention", role: .selfAttention, parameters: attentionParameters) {
            linear("q_proj", (gatesAttention ? 2 : 1) * heads * headSize, width, bias: queryKeyValueBias, role: .query)
            linear("k_proj", keyValueHeads * headSize, width, bias: queryKeyValueBias, role: .key)
            linear("v_proj", keyValueHeads * headSize, width, bias: queryKeyValueBias, role: .value)
            linear("o_proj", width, heads * headSize, bias: outputBias, role: .attentionOutput)
            attentionEnd
        }
    }

    private var rotaryModules: [ModuleNode] {
        guard let rotated = rotary.first?.rotated else { return [] }
        return [
            rotaryModule(rotaryName, "\(rotaryPrefix)RotaryEmbedding", rotated: rotated, layerTypes: rotaryLayerTypes)
        ]
    }

    /// - Parameter attention: where it is not the usual four projections.
    func architecture(attention custom: ModuleNode? = nil) throws -> ModelArchitecture {
        let root = module("", "\(prefix)ForCausalLM") {
            module("model", modelClass) {
                embedding(
                    "embed_tokens", vocabulary, width, role: .tokenEmbedding, className: embeddingClass,
                    buffers: embeddingBuffers)
                list("layers", layers) { layer, name in
                    let mixer = mixer?(layer) ?? custom ?? attention
                    return module(name, "\(prefix)DecoderLayer", role: .block) {
                        beforeAttention
                        if !attentionIsLast { mixer }
                        afterAttention?() ?? [feedForward?(layer) ?? gated()] + blockEnd
                        if attentionIsLast { mixer }
                    }
                }
                if rotaryPrecedesNorm { rotaryModules }
                norm(finalNorm, .finalNorm)
                if !rotaryPrecedesNorm { rotaryModules }
            }
            linear("lm_head", vocabulary, width, bias: headBias, role: .head)
        }
        var decoder = StackDescription(path: "model", width: width, layers: blocks)
        decoder.rotary = rotary
        decoder.embeddingScale = embeddingScale
        decoder.roundsEmbeddingScale = roundsEmbeddingScale
        return ModelArchitecture(
            modelType: try config.string("model_type", default: ""),
            tree: ModuleTree(
                root: root,
                tied: .tied(
                    try config.bool("tie_word_embeddings", default: false), ("lm_head.weight", "model.embed_tokens.weight")),
                noSplitClasses: otherNoSplitClasses.union(["\(prefix)DecoderLayer"]), keepInFloat32: keepInFloat32,
                alwaysFloat32: alwaysFloat32),
            keys: keys, decoder: decoder, head: head, vocabularySize: vocabulary,
            maximumPositions: try config.optionalPositions("max_position_embeddings"))
    }
}
