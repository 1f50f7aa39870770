import NibbleCore

/// BART (arXiv 1910.13461): an encoder-decoder with learned positions that begin at 2 and norms after the residual sums.
///
///     nibble generate facebook/bart-large-cnn --load-in-8bit "…"
enum Bart {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        try BartLike(config, "Bart", positions: .learned(offset: 2), normsFirst: false, hasEmbeddingNorm: true)
            .architecture(noSplitClasses: ["BartEncoderLayer", "BartDecoderLayer"])
    }
}

/// mBART (arXiv 2001.08210): BART with norms before each sublayer and a last one after each stack.
///
///     nibble generate facebook/mbart-large-50-many-to-many-mmt --load-in-8bit "…"
enum MBart {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        try BartLike(config, "MBart", positions: .learned(offset: 2), normsFirst: true, hasEmbeddingNorm: true)
            .architecture(noSplitClasses: ["MBartDecoderLayer", "MBartEncoderLayer", "MBartAttention"])
    }
}

/// Blenderbot (arXiv 2004.13637): mBART with positions that begin at 0 and no norm on the embeddings.
///
///     nibble generate facebook/blenderbot-400M-distill --load-in-8bit "My friends are cool but they eat too many carbs."
enum Blenderbot {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var model = try BartLike(
            config.filled(["max_position_embeddings": 128]), "Blenderbot", positions: .learned(offset: 0), normsFirst: true)
        model.tiedStacks = ["encoder", "decoder"]
        return try model.architecture(noSplitClasses: [])
    }
}

/// Pegasus (arXiv 1912.08777): mBART with sinusoids for positions and no norm on the embeddings.
///
///     nibble generate google/pegasus-xsum --load-in-8bit "…"
enum Pegasus {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let positions = try config.size("max_position_embeddings", default: 1024)
        return try BartLike(config, "Pegasus", positions: .sinusoidal(positions: positions), normsFirst: true)
            .architecture(noSplitClasses: [])
    }
}

/// M2M100 and NLLB (arXiv 2010.11125, 2207.04672), translators between any two of their languages: mBART with Fairseq's
/// sinusoids for positions and no norm on the embeddings. The first token of an answer is its language.
///
///     nibble generate facebook/nllb-200-distilled-600M --load-in-8bit --tgt-lang kor_Hang "The house is wonderful."
enum M2M100 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled(["activation_function": "relu", "scale_embedding": true])
        let positions = try config.size("max_position_embeddings", default: 1024)
        var model = try BartLike(config, "M2M100", positions: .sinusoidal(positions: positions, .fairseq), normsFirst: true)
        try config.require(model.width >= 4, "d_model", "at least 4")
        model.countsPadding = false
        model.hasLogitsBias = false
        return try model.architecture(noSplitClasses: ["M2M100EncoderLayer", "M2M100DecoderLayer"])
    }
}

/// Marian, the OPUS-MT translators (arXiv 1804.00344): BART with sinusoids for positions.
///
///     nibble generate Helsinki-NLP/opus-mt-en-de --load-in-8bit "The house is wonderful."
enum Marian {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        try config.require(
            config.bool("share_encoder_decoder_embeddings", default: true), "share_encoder_decoder_embeddings", "true")
        let positions = try config.size("max_position_embeddings", default: 1024)
        return try BartLike(
            config, "Marian", modelClass: "MarianMTModel", positions: .sinusoidal(positions: positions), normsFirst: false
        )
        .architecture(noSplitClasses: [])
    }
}

/// An encoder and a decoder of plain feed-forwards with biases everywhere, over one shared table of embeddings.
private struct BartLike {
    let config: ConfigReader
    /// How the reference's class names begin.
    let prefix: String
    let modelClass: String
    let width, vocabulary, positionCount: Int
    let activation: NamedActivation
    let positions: StackDescription.PositionTable
    let normsFirst, hasEmbeddingNorm, scalesEmbedding: Bool
    /// The order in which the reference ties the stacks' tables.
    var tiedStacks = ["decoder", "encoder"]
    /// Whether the encoder's positions count the padding before a text.
    var countsPadding = true
    /// Whether the model has `final_logits_bias`.
    var hasLogitsBias = true

    init(
        _ config: ConfigReader, _ prefix: String, modelClass: String? = nil, positions: StackDescription.PositionTable,
        normsFirst: Bool, hasEmbeddingNorm: Bool = false
    ) throws {
        self.config = config
        self.prefix = prefix
        self.modelClass = modelClass ?? "\(prefix)ForConditionalGeneration"
        self.positions = positions
        self.normsFirst = normsFirst
        self.hasEmbeddingNorm = hasEmbeddingNorm
        width = try config.size("d_model", "hidden_size")
        vocabulary = try config.size("vocab_size")
        positionCount = try config.size("max_position_embeddings", default: 1024)
        activation = try config.activation("activation_function", default: "gelu")
        if case .sinusoidal = positions {
            try config.require(positionCount <= 1 << 20, "max_position_embeddings", "at most \(1 << 20)")
        }
        scalesEmbedding = try config.bool("scale_embedding", default: false)
    }

    func architecture(noSplitClasses: Set<String>) throws -> ModelArchitecture {
        let encoder = try Stack(self, "encoder", isDecoder: false)
        let decoder = try Stack(self, "decoder", isDecoder: true)
        let root = module(
            "", modelClass,
            buffers: hasLogitsBias
                ? [.init("final_logits_bias", count: vocabulary, isPersistent: true, followsLoadDType: true)] : []
        ) {
            module("model", "\(prefix)Model") {
                tokenEmbedding("shared")
                encoder.tree
                decoder.tree
            }
            linear("lm_head", vocabulary, width, role: .head)
        }
        var head = HeadDescription()
        if hasLogitsBias { head.biasPath = "final_logits_bias" }
        var keys = CheckpointKeys(basePrefix: "model")
        keys.ignore("embed_positions.weights")
        return ModelArchitecture(
            modelType: try config.string("model_type", default: prefix.lowercased()),
            tree: ModuleTree(
                root: root,
                tied: .tied(
                    try config.bool("tie_word_embeddings", default: true), ("lm_head.weight", "model.shared.weight"),
                    ("model.\(tiedStacks[0]).embed_tokens.weight", "model.shared.weight"),
                    ("model.\(tiedStacks[1]).embed_tokens.weight", "model.shared.weight")),
                noSplitClasses: noSplitClasses),
            keys: keys, decoder: decoder.description, encoder: encoder.description,
            head: head, vocabularySize: vocabulary, maximumPositions: positionCount)
    }

    /// Pegasus and Marian scale embeddings outside the module.
    private var hasPlainEmbeddings: Bool { if case .sinusoidal(_, .transformer) = positions { true } else { false } }

    func tokenEmbedding(_ name: String) -> ModuleNode {
        embedding(
            name, vocabulary, width, role: .tokenEmbedding,
            className: hasPlainEmbeddings ? "Embedding" : "\(prefix)ScaledWordEmbedding")
    }

    var positionEmbedding: ModuleNode {
        if case .learned(let offset) = positions {
            return embedding(
                "embed_positions", positionCount + offset, width, role: .positionEmbedding,
                className: "\(prefix)LearnedPositionalEmbedding")
        }
        if case .sinusoidal(let positions, .fairseq) = positions {
            return .fairseqPositions(positions, width, className: "\(prefix)SinusoidalPositionalEmbedding")
        }
        return ModuleNode(
            "embed_positions", "\(prefix)SinusoidalPositionalEmbedding", kind: .embedding, role: .positionEmbedding,
            parameters: [.init("weight", [positionCount, width], isComputed: true)])
    }

    /// One of the two stacks.
    private struct Stack {
        let family: BartLike
        let name: String
        let isDecoder: Bool
        let layers, heads, headSize, inner: Int

        init(_ family: BartLike, _ name: String, isDecoder: Bool) throws {
            self.family = family
            self.name = name
            self.isDecoder = isDecoder
            layers = try family.config.layerCount("\(name)_layers", "num_hidden_layers")
            heads = try family.config.headCount("\(name)_attention_heads", "num_attention_heads")
            headSize = try family.config.headSize(width: family.width, heads: heads)
            inner = try family.config.size("\(name)_ffn_dim")
        }

        private var width: Int { family.width }

        var tree: ModuleNode {
            module(name, "\(family.prefix)\(isDecoder ? "Decoder" : "Encoder")") {
                family.tokenEmbedding("embed_tokens")
                family.positionEmbedding
                list("layers", layers) { _, name in isDecoder ? decoderLayer(name) : encoderLayer(name) }
                if family.hasEmbeddingNorm { layerNorm("layernorm_embedding", width, 1e-5, role: .embeddingNorm) }
                if family.normsFirst { layerNorm("layer_norm", width, 1e-5, role: .finalNorm) }
            }
        }

        private func encoderLayer(_ name: String) -> ModuleNode {
            module(name, "\(family.prefix)EncoderLayer", role: .block) {
                attention("self_attn", .selfAttention)
                norm("self_attn_layer_norm", .attentionNorm, .attentionResidualNorm)
                plain("activation_fn", family.activation.className)
                feedForward
            }
        }

        private func decoderLayer(_ name: String) -> ModuleNode {
            module(name, "\(family.prefix)DecoderLayer", role: .block) {
                attention("self_attn", .selfAttention)
                plain("activation_fn", family.activation.className)
                norm("self_attn_layer_norm", .attentionNorm, .attentionResidualNorm)
                attention("encoder_attn", .crossAttention)
                norm("encoder_attn_layer_norm", .crossAttentionNorm, .crossAttentionResidualNorm)
                feedForward
            }
        }

        private func attention(_ name: String, _ role: Role) -> ModuleNode {
            module(name, "\(family.prefix)Attention", role: role) {
                linear("k_proj", width, width, bias: true, role: .key)
                linear("v_proj", width, width, bias: true, role: .value)
                linear("q_proj", width, width, bias: true, role: .query)
                linear("out_proj", width, width, bias: true, role: .attentionOutput)
            }
        }

        private var feedForward: [ModuleNode] {
            [
                linear("fc1", inner, width, bias: true, role: .up),
                linear("fc2", width, inner, bias: true, role: .down),
                norm("final_layer_norm", .feedForwardNorm, .feedForwardResidualNorm),
            ]
        }

        private func norm(_ name: String, _ before: Role, _ after: Role) -> ModuleNode {
            layerNorm(name, width, 1e-5, role: family.normsFirst ? before : after)
        }

        var description: StackDescription {
            var attention = AttentionDescription(heads: heads, headSize: headSize)
            attention.isCausal = isDecoder
            var layer = LayerDescription(attention: attention, feedForward: .plain(family.activation.function))
            if isDecoder {
                layer.crossAttention = AttentionDescription(heads: heads, headSize: headSize)
                layer.crossAttention?.isCausal = false
            }
            var stack = StackDescription(path: "model.\(name)", width: width, layers: Array(repeating: layer, count: layers))
            stack.positions = family.positions
            stack.countsPadding = !isDecoder && family.countsPadding
            if family.scalesEmbedding { stack.embeddingScale = Float(width).squareRoot() }
            return stack
        }
    }
}
