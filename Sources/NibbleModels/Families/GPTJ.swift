import NibbleCore

/// GPT-J: attention and feed-forward side by side after one norm, neighbouring pairs of a head's first elements rotated.
///
///     nibble generate EleutherAI/gpt-j-6b --load-in-4bit --quant-type nf4 "Once upon a time"
enum GPTJ {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        try architecture(config, prefix: "GPTJ", layout: nil) { model in
            [("k_proj", Role.key), ("v_proj", .value), ("q_proj", .query)].map { linear($0, model.width, model.width, role: $1) }
        }
    }

    /// - Parameters:
    ///   - layout: where queries, keys and values lie in the projections' output; `nil`: side by side.
    ///   - projections: the modules that compute them.
    static func architecture(
        _ config: ConfigReader, prefix: String, layout: ((GPTLike) throws -> QueryKeyValueLayout)?,
        projections: @escaping (GPTLike) -> [ModuleNode]
    ) throws -> ModelArchitecture {
        var model = try GPTLike(
            config, prefix,
            .init(
                width: ["n_embd", "hidden_size"], layers: ["n_layer", "num_hidden_layers"],
                heads: ["n_head", "num_attention_heads"], inner: "n_inner"))
        let positions = try config.size("n_positions", "max_position_embeddings", default: 2048)
        let rotated = try config.size("rotary_dim", default: min(64, model.headSize))
        try config.require(
            rotated % 2 == 0 && rotated <= model.headSize, "rotary_dim", "an even number of a head's \(model.headSize) elements")
        model.beforeBlocks = [dropout("drop")]
        model.block = { [model] in block(model, tableCount: positions * rotated, projections(model)) }
        model.headBias = true
        model.isTied = false
        model.keys.ignore("attn.bias", "attn.masked_bias", "attn.causal_mask")

        try model.rotate(RotaryDescription(rotated: rotated, theta: 10000, isInterleaved: true))
        model.maximumPositions = positions
        let layout = try layout?(model)
        model.forEachBlock {
            $0.isParallel = true
            if let layout { $0.attention.layout = layout }
        }
        return try model.architecture()
    }

    @ModuleBuilder private static func block(
        _ model: GPTLike, tableCount: Int, _ projections: [ModuleNode]
    ) -> [ModuleNode] {
        let (width, prefix) = (model.width, model.prefix)
        model.norm("ln_1", .attentionNorm)
        module(
            "attn", "\(prefix)Attention", role: .selfAttention, buffers: [.init("embed_positions", count: tableCount)]
        ) {
            dropout("attn_dropout")
            dropout("resid_dropout")
            projections
            linear("out_proj", width, width, role: .attentionOutput)
        }
        module("mlp", "\(prefix)MLP", role: .feedForward) {
            linear("fc_in", model.inner, width, bias: true, role: .up)
            linear("fc_out", width, model.inner, bias: true, role: .down)
            plain("act", model.activation.className)
            dropout("dropout")
        }
    }
}

/// CodeGen (arXiv 2203.13474): GPT-J with one fused projection, laid out for four devices: a quarter of the queries,
/// values, keys, then the next quarter.
///
///     nibble generate Salesforce/codegen-350M-mono --load-in-8bit "def fibonacci(n):"
enum CodeGen {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        try GPTJ.architecture(config, prefix: "CodeGen") { model in
            try config.require(model.heads % 4 == 0, "n_head", "a multiple of 4")
            let quarter = model.width / 4
            func offsets(_ index: Int) -> QueryKeyValueLayout.HeadOffsets {
                .init(offset: index * quarter, stride: 3 * quarter, groupSize: model.heads / 4)
            }
            return QueryKeyValueLayout(query: offsets(0), key: offsets(2), value: offsets(1))
        } projections: { model in
            [linear("qkv_proj", 3 * model.width, model.width, role: .queryKeyValue)]
        }
    }
}
