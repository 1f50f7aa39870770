import NibbleCore

/// T5 (arXiv 1910.10683), T5 v1.1, Flan-T5, UL2, mT5 and UMT5 (arXiv 2304.09151): an encoder-decoder with relative position
/// biases, RMS norms and unscaled attention.
///
///     nibble generate google/flan-t5-small --load-in-8bit "translate English to German: The house is wonderful."
enum T5 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let sizes = try Sizes(config)
        let layers = try config.layerCount("num_layers", "num_hidden_layers", default: 6)
        let decoderLayers = try config.layerCount("num_decoder_layers", default: layers)
        let prefix = sizes.prefix

        let root = module("", "\(prefix)ForConditionalGeneration") {
            embedding("shared", sizes.vocabulary, sizes.width, role: .tokenEmbedding)
            stack("encoder", layers, sizes, prefix, isDecoder: false)
            stack("decoder", decoderLayers, sizes, prefix, isDecoder: true)
            linear("lm_head", sizes.vocabulary, sizes.width, role: .head)
        }
        var head = HeadDescription()
        if try scalesHead(config) { head.scale = 1 / Float(sizes.width).squareRoot() }

        return ModelArchitecture(
            modelType: prefix.lowercased(),
            tree: ModuleTree(
                root: root,
                // Declared always; a head that the file holds with other values is untied when it is loaded.
                tied: .tied(
                    true, ("encoder.embed_tokens.weight", "shared.weight"), ("decoder.embed_tokens.weight", "shared.weight"),
                    ("lm_head.weight", "shared.weight")),
                noSplitClasses: ["\(prefix)Block"], keepInFloat32: ["wo"]),
            keys: CheckpointKeys(
                basePrefix: "",
                ignoredSuffixes: ["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"]),
            decoder: description("decoder", decoderLayers, sizes, isDecoder: true),
            encoder: description("encoder", layers, sizes, isDecoder: false),
            head: head, vocabularySize: sizes.vocabulary)
    }

    /// Whether the head's input is multiplied by width^-½. Newer configs say so themselves, older ones by being tied; mT5
    /// never does, UMT5 always.
    private static func scalesHead(_ config: ConfigReader) throws -> Bool {
        switch try config.string("model_type", default: "t5") {
        case "mt5": return false
        case "umt5": return true
        default: break
        }
        if config.value("scale_decoder_outputs") != nil { return try config.bool("scale_decoder_outputs", default: true) }
        return try config.bool("tie_word_embeddings", default: true)
    }

    private struct Sizes {
        let width, heads, headSize, inner, vocabulary, buckets, maximumDistance: Int
        let epsilon: Float
        /// How the reference's class names begin.
        let prefix: String
        let isGated: Bool
        /// Whether every layer has a table of relative biases (UMT5), or all share the first one's.
        let hasBiasPerLayer: Bool
        let activation: NamedActivation

        init(_ config: ConfigReader) throws {
            width = try config.size("d_model", "hidden_size")
            heads = try config.headCount("num_heads", "num_attention_heads")
            headSize = try config.size("d_kv", default: 64)
            inner = try config.size("d_ff")
            vocabulary = try config.size("vocab_size")
            buckets = try config.size("relative_attention_num_buckets", default: 32)
            maximumDistance = try config.size("relative_attention_max_distance", default: 128)
            epsilon = try config.float("layer_norm_epsilon", default: 1e-6)
            prefix = try config.string("model_type", default: "t5").uppercased()
            hasBiasPerLayer = prefix == "UMT5"
            let projection = try config.string("feed_forward_proj", default: prefix == "T5" ? "relu" : "gated-gelu")
            isGated = projection.hasPrefix("gated-")
            // "gated-gelu" has always meant the tanh approximation.
            let word = projection == "gated-gelu" ? "gelu_new" : isGated ? String(projection.dropFirst(6)) : projection
            guard let activation = NamedActivation(word) else {
                throw ModelError.wrongField(
                    "feed_forward_proj", file: config.file, expected: "an activation, or gated- and an activation",
                    found: "\"\(projection)\"")
            }
            self.activation = activation
        }

        var projected: Int { heads * headSize }
    }

    private static func stack(_ name: String, _ layers: Int, _ s: Sizes, _ prefix: String, isDecoder: Bool) -> ModuleNode {
        module(name, "\(prefix)Stack") {
            embedding("embed_tokens", s.vocabulary, s.width, role: .tokenEmbedding)
            list("block", layers) { index, name in
                module(name, "\(prefix)Block", role: .block) {
                    module("layer", "ModuleList") {
                        module("0", "\(prefix)LayerSelfAttention") {
                            attention("SelfAttention", s, prefix, role: .selfAttention, hasBias: index == 0 || s.hasBiasPerLayer)
                            norm("layer_norm", s, prefix, role: .attentionNorm)
                            dropout("dropout")
                        }
                        if isDecoder {
                            module("1", "\(prefix)LayerCrossAttention") {
                                attention("EncDecAttention", s, prefix, role: .crossAttention, hasBias: false)
                                norm("layer_norm", s, prefix, role: .crossAttentionNorm)
                                dropout("dropout")
                            }
                        }
                        module(isDecoder ? "2" : "1", "\(prefix)LayerFF") {
                            feedForward(s, prefix)
                            norm("layer_norm", s, prefix, role: .feedForwardNorm)
                            dropout("dropout")
                        }
                    }
                }
            }
            norm("final_layer_norm", s, prefix, role: .finalNorm)
            dropout("dropout")
        }
    }

    private static func norm(_ name: String, _ s: Sizes, _ prefix: String, role: Role) -> ModuleNode {
        rmsNorm(name, s.width, s.epsilon, role: role, className: "\(prefix)LayerNorm")
    }

    private static func attention(_ name: String, _ s: Sizes, _ prefix: String, role: Role, hasBias: Bool) -> ModuleNode {
        module(name, "\(prefix)Attention", role: role) {
            linear("q", s.projected, s.width, role: .query)
            linear("k", s.projected, s.width, role: .key)
            linear("v", s.projected, s.width, role: .value)
            linear("o", s.width, s.projected, role: .attentionOutput)
            if hasBias { embedding("relative_attention_bias", s.buckets, s.heads, role: .relativeBias) }
        }
    }

    private static func feedForward(_ s: Sizes, _ prefix: String) -> ModuleNode {
        module("DenseReluDense", s.isGated ? "\(prefix)DenseGatedActDense" : "\(prefix)DenseActDense", role: .feedForward) {
            if s.isGated {
                linear("wi_0", s.inner, s.width, role: .gate)
                linear("wi_1", s.inner, s.width, role: .up)
            } else {
                linear("wi", s.inner, s.width, role: .up)
            }
            linear("wo", s.width, s.inner, role: .down)
            dropout("dropout")
            plain("act", s.activation.className)
        }
    }

    private static func description(_ path: String, _ layers: Int, _ s: Sizes, isDecoder: Bool) -> StackDescription {
        var attention = AttentionDescription(heads: s.heads, headSize: s.headSize, scale: 1)
        attention.isCausal = isDecoder
        attention.bias = .relative(isBidirectional: !isDecoder, maximumDistance: s.maximumDistance)
        var layer = LayerDescription(
            attention: attention, feedForward: s.isGated ? .gated(s.activation.function) : .plain(s.activation.function))
        if isDecoder {
            var cross = AttentionDescription(heads: s.heads, headSize: s.headSize, scale: 1)
            cross.isCausal = false
            layer.crossAttention = cross
        }
        return StackDescription(path: path, width: s.width, layers: Array(repeating: layer, count: layers))
    }
}
