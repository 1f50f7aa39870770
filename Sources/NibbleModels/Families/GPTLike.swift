import NibbleCore

/// The decoder that GPT-2 made common: layer norms, and a plain feed-forward of an up and a down projection. A family makes
/// one, says what differs, and asks for its ``architecture()``.
struct GPTLike {
    let config: ConfigReader
    /// How the reference's class names begin: `GPT2` in `GPT2LMHeadModel`.
    let prefix: String
    let width, layers, heads, headSize, vocabulary: Int
    /// F
    var inner: Int
    let epsilon: Float
    let activation: NamedActivation

    // The module tree
    /// The module below the root that holds embeddings, blocks and final norm.
    var base = "transformer"
    var modelClass: String
    var baseClass: String
    var blockClass: String
    var tokenEmbedding = "wte"
    var embeddingClass = "Embedding"
    /// Between the token embedding and the blocks: positions, norms, dropouts.
    var beforeBlocks: [ModuleNode] = []
    var blockList = "h"
    /// The modules of a block.
    var block: () -> [ModuleNode] = { [] }
    /// As ``block``, where blocks differ.
    var blockAt: ((_ layer: Int) -> [ModuleNode])?
    /// Between the blocks and the final norm.
    var afterBlocks: [ModuleNode] = []
    /// `nil`: there is none.
    var finalNorm: String? = "ln_f"
    var normBias = true
    /// The last modules of the base.
    var end: [ModuleNode] = []
    var head = "lm_head"
    var headBias = false
    /// Buffers of the base.
    var buffers: [ModuleNode.Buffer] = []
    /// Whether the reference keeps blocks whole when it places a model.
    var keepsBlocksWhole = true
    /// `tie_word_embeddings` where the config says nothing.
    var isTied = true

    // What the modules do
    var blocks: [LayerDescription]
    var rotary: [RotaryDescription] = []
    var positions: StackDescription.PositionTable = .none
    var maximumPositions: Int?
    var embeddingScale: Float = 1
    var keys = CheckpointKeys(basePrefix: "transformer")

    /// The fields of a config that hold what every family has, each with its alternatives.
    struct Fields {
        var width = ["hidden_size"]
        var layers = ["num_hidden_layers"]
        var heads = ["num_attention_heads"]
        /// `nil`: always 10⁻⁵.
        var epsilon: String? = "layer_norm_epsilon"
        var activation = (key: "activation_function", fallback: "gelu_new")
        /// `nil`: always four times the width.
        var inner: String?
    }

    init(_ config: ConfigReader, _ prefix: String, _ fields: Fields) throws {
        self.config = config
        self.prefix = prefix
        let width = try config.size(fields.width)
        let heads = try config.headCount(fields.heads)
        let headSize = try config.headSize(width: width, heads: heads)
        (self.width, self.heads, self.headSize) = (width, heads, headSize)
        layers = try config.layerCount(fields.layers)
        vocabulary = try config.size("vocab_size")
        inner = try fields.inner.map { try config.size($0, default: 4 * width) } ?? 4 * width
        epsilon = try fields.epsilon.map { try config.float($0, default: 1e-5) } ?? 1e-5
        activation = try config.activation(fields.activation.key, default: fields.activation.fallback)
        modelClass = "\(prefix)ForCausalLM"
        baseClass = "\(prefix)Model"
        blockClass = "\(prefix)Block"
        let attention = AttentionDescription(heads: heads, headSize: headSize)
        let layer = LayerDescription(attention: attention, feedForward: .plain(activation.function))
        blocks = Array(repeating: layer, count: layers)
    }

    /// A norm of the residual stream.
    func norm(_ name: String, _ role: Role) -> ModuleNode { layerNorm(name, width, epsilon, bias: normBias, role: role) }

    /// A learned table of positions.
    mutating func learnPositions(_ name: String, count: Int) {
        beforeBlocks.append(embedding(name, count, width, role: .positionEmbedding))
        positions = .learned(offset: 0)
        maximumPositions = count
    }

    /// Rotates queries and keys of every layer.
    mutating func rotate(_ description: RotaryDescription) throws {
        rotary = [description]
        forEachBlock { $0.attention.rotary = 0 }
        maximumPositions = try config.optionalPositions("max_position_embeddings")
    }

    @inline(never)
    mutating func forEachBlock(_ change: (inout LayerDescription) -> Void) {
        for layer in blocks.indices { change(&blocks[layer]) }
    }

    /// The module of the stack, in the order of GPT-2's.
    private var body: ModuleNode {
        module(base, baseClass, buffers: buffers) {
            embedding(tokenEmbedding, vocabulary, width, role: .tokenEmbedding, className: embeddingClass)
            beforeBlocks
            list(blockList, layers) { layer, name in module(name, blockClass, role: .block) { blockAt?(layer) ?? block() } }
            afterBlocks
            if let finalNorm { norm(finalNorm, .finalNorm) }
            end
        }
    }

    /// - Parameters:
    ///   - custom: the module called ``base``, where its order is another than GPT-2's.
    ///   - path: the module that holds embeddings and blocks, where it is not ``base`` itself.
    ///   - headWidth: what the head reads, where that is not the width.
    func architecture(body custom: ModuleNode? = nil, path: String? = nil, headWidth: Int? = nil) throws -> ModelArchitecture {
        let path = path ?? base
        let root = module("", modelClass) {
            custom ?? body
            linear(head, vocabulary, headWidth ?? width, bias: headBias, role: .head)
        }
        var decoder = StackDescription(path: path, width: width, layers: blocks)
        decoder.rotary = rotary
        decoder.positions = positions
        decoder.embeddingScale = embeddingScale
        var keys = keys
        keys.basePrefix = base
        return ModelArchitecture(
            modelType: try config.string("model_type", default: prefix.lowercased()),
            tree: ModuleTree(
                root: root,
                tied: .tied(
                    try config.bool("tie_word_embeddings", default: isTied),
                    ("\(head).weight", "\(path).\(tokenEmbedding).weight")),
                noSplitClasses: keepsBlocksWhole ? [blockClass] : [], outputEmbedding: head),
            keys: keys, decoder: decoder, vocabularySize: vocabulary, maximumPositions: maximumPositions)
    }
}
