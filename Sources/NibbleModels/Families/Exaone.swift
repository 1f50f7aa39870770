import NibbleCore

/// EXAONE 3 and 3.5, EXAONE Deep (arXiv 2412.04862): Llama under other names.
///
///     nibble generate LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct --load-in-4bit --quant-type nf4 "대한민국의 수도는"
enum Exaone {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let aliases = [
            "num_hidden_layers": "num_layers", "rms_norm_eps": "layer_norm_epsilon", "hidden_act": "activation_function",
        ]
        let config = config.aliasing(aliases)
            .filled(["num_key_value_heads": 8, "rms_norm_eps": 1e-5, "max_position_embeddings": 4096])
        var model = try LlamaLike(config, "Llama", rotary: .init(defaultTheta: 500_000))
        try model.readBiases(feedForward: true)
        model.keys = CheckpointKeys(
            basePrefix: "model",
            pairs: [
                ("transformer.wte.", "model.embed_tokens."), ("transformer.h.", "model.layers."),
                ("transformer.ln_f.", "model.norm."), (".attn.attention.", ".self_attn."), (".out_proj.", ".o_proj."),
                (".ln_1.", ".input_layernorm."), (".ln_2.", ".post_attention_layernorm."), (".c_fc_0.", ".gate_proj."),
                (".c_fc_1.", ".up_proj."), (".c_proj.", ".down_proj."),
            ])
        return try model.architecture()
    }
}
