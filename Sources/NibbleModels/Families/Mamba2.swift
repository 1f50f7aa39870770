import NibbleCore

/// Mamba 2 (arXiv 2405.21060): blocks of a state space model alone.
///
///     nibble generate mistralai/Mamba-Codestral-7B-v0.1 --load-in-4bit --quant-type nf4 "def fibonacci(n):"
enum Mamba2 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let (width, layers) = (try config.size("hidden_size"), try config.layerCount("num_hidden_layers"))
        let (vocabulary, epsilon) = (try config.size("vocab_size"), try config.float("layer_norm_epsilon", default: 1e-5))
        let activation = try config.activation("hidden_act", default: "silu")
        var space = StateSpaceDescription(
            heads: try config.headCount("num_heads", default: 128), headSize: try config.size("head_dim", default: 64),
            groups: try config.headCount("n_groups", default: 8), stateSize: try config.size("state_size", default: 128),
            kernel: try config.size("conv_kernel", default: 4), activation: activation.function)
        space.timeLimits = try config.timeLimits()
        try config.require(
            space.width == width * config.size("expand", default: 2), "num_heads",
            "heads of \(space.headSize) that make `expand` times the width of \(width)")
        let bias = try config.bool("use_bias", default: false)
        let mixer = try stateSpaceMixer(
            "mixer", "Mamba2Mixer", normClass: "MambaRMSNormGated", space, width: width, epsilon: epsilon, activation: activation,
            bias: (bias, bias),
            convolutionBias: config.bool("use_conv_bias", default: true))
        let root = module("", "Mamba2ForCausalLM") {
            module("backbone", "Mamba2Model") {
                embedding("embeddings", vocabulary, width, role: .tokenEmbedding)
                list("layers", layers) { _, name in
                    module(name, "Mamba2Block", role: .block) {
                        rmsNorm("norm", width, epsilon, role: .attentionNorm, className: "Mamba2RMSNorm")
                        mixer
                    }
                }
                rmsNorm("norm_f", width, epsilon, role: .finalNorm, className: "Mamba2RMSNorm")
            }
            linear("lm_head", vocabulary, width, role: .head)
        }
        let layer = LayerDescription(recurrence: .stateSpace(space), feedForward: .none)
        return ModelArchitecture(
            modelType: try config.string("model_type", default: ""),
            tree: ModuleTree(
                root: root,
                tied: .tied(
                    try config.bool("tie_word_embeddings", default: false), ("lm_head.weight", "backbone.embeddings.weight")),
                noSplitClasses: ["Mamba2Block"]),
            keys: CheckpointKeys(basePrefix: "backbone"),
            decoder: StackDescription(path: "backbone", width: width, layers: Array(repeating: layer, count: layers)),
            vocabularySize: vocabulary, maximumPositions: nil)
    }
}

/// The module of a Mamba 2 mixer.
/// - Parameters:
///   - bias: of the input and the output projection.
func stateSpaceMixer(
    _ name: String, _ className: String, normClass: String, _ space: StateSpaceDescription, width: Int, epsilon: Float,
    activation: NamedActivation, bias: (input: Bool, output: Bool), convolutionBias: Bool, buffers: [ModuleNode.Buffer] = []
) -> ModuleNode {
    let projected = space.width + space.channels + space.heads
    let norm = rmsNorm("norm", space.width, epsilon, role: .mixerNorm, className: normClass)
    return ModuleNode(
        name, className, role: .recurrence,
        parameters: ["dt_bias", "A_log", "D"].map { .init($0, [space.heads]) }, buffers: buffers,
        children: [
            plain("act", activation.className), convolution("conv1d", space.channels, space.kernel, bias: convolutionBias),
            linear("in_proj", projected, width, bias: bias.input, role: .mixerInput),
        ] + (space.hasNorm ? [norm] : []) + [
            linear("out_proj", width, space.width, bias: bias.output, role: .mixerOutput)
        ])
}

extension ConfigReader {
    /// `time_step_limit`: bounds of time steps, of which the upper one may be infinite.
    func timeLimits() throws -> ClosedRange<Float> {
        guard let given = value("time_step_limit"), !given.isNull else { return 0...Float.infinity }
        // transformers 5 writes infinity as {"__float__": "Infinity"}.
        let numbers = (given.array ?? []).compactMap { number -> Double? in
            number.double ?? (number.object?["__float__"]?.string == "Infinity" ? .infinity : nil)
        }
        guard numbers.count == 2, numbers[0] <= numbers[1], numbers[0] >= 0 else {
            throw ModelError.wrongField(
                "time_step_limit", file: file, expected: "two numbers, the lower first",
                found: given.encoded(.spaced))
        }
        return Float(numbers[0])...Float(numbers[1])
    }

    /// The Mamba 2 mixer of a hybrid model, from fields that begin with `mamba_`.
    /// - Parameter inner: the width of x, where it is not `mamba_expand` times the model's.
    func stateSpace(width: Int, inner: Int? = nil, activation: NamedActivation) throws -> StateSpaceDescription {
        let inner = try inner ?? width * size("mamba_expand", default: 2)
        let heads = try headCount("mamba_n_heads", default: 128)
        let isAutomatic = value("mamba_d_head")?.string == "auto" || value("mamba_d_head") == nil
        let headSize = isAutomatic ? inner / heads : try size("mamba_d_head")
        try require(heads * headSize == inner, "mamba_n_heads", "heads of \(headSize) that make the width of \(inner)")
        var space = StateSpaceDescription(
            heads: heads, headSize: headSize, groups: try headCount("mamba_n_groups", default: 1),
            stateSize: try size("mamba_d_state", default: 256), kernel: try size("mamba_d_conv", default: 4),
            activation: activation.function)
        space.timeLimits = try timeLimits()
        return space
    }
}

extension LlamaLike {
    /// The module of a hybrid model's Mamba 2 mixers.
    func mambaMixer(
        _ space: StateSpaceDescription, className: String = "Mixer", outputBias: Bool? = nil, buffers: [ModuleNode.Buffer] = []
    ) throws -> ModuleNode {
        let bias = try config.bool("mamba_proj_bias", default: false)
        return stateSpaceMixer(
            "mamba", prefix + className, normClass: "\(prefix)RMSNormGated", space, width: width, epsilon: epsilon,
            activation: activation,
            bias: (bias, outputBias ?? bias), convolutionBias: try config.bool("mamba_conv_bias", default: true), buffers: buffers
        )
    }

    /// Mamba 2 in place of attention in the layers for which `isMamba` holds.
    mutating func mixStateSpaces(where isMamba: [Bool], className: String = "Mixer") throws {
        let space = try config.stateSpace(width: width, activation: activation)
        let node = try mambaMixer(space, className: className)
        mixer = { isMamba[$0] ? node : nil }
        for layer in blocks.indices where isMamba[layer] {
            blocks[layer].selfAttention = nil
            blocks[layer].recurrence = .stateSpace(space)
        }
    }
}
