import NibbleCore

/// StarCoder2 (arXiv 2402.19173): Mistral's attention with layer norms, biases and a plain feed-forward.
///
///     nibble generate bigcode/starcoder2-3b --load-in-4bit --quant-type nf4 "def fibonacci(n):"
enum Starcoder2 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled([
            "num_key_value_heads": 2, "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": true,
            "max_position_embeddings": 4096,
        ])
        let epsilon = try config.float("norm_epsilon", default: 1e-5)
        let bias = try config.bool("use_bias", default: true)
        var model = try LlamaLike(config, "Starcoder2")
        try model.slide()
        (model.queryKeyValueBias, model.outputBias) = (bias, bias)
        let width = model.width
        model.norm = { layerNorm($0, width, epsilon, role: $1) }
        model.blockEnd = [
            model.norm("input_layernorm", .attentionNorm), model.norm("post_attention_layernorm", .feedForwardNorm),
        ]
        model.feedForward = { [model] _ in
            module("mlp", "Starcoder2MLP", role: .feedForward) {
                linear("c_fc", model.inner, width, bias: bias, role: .up)
                linear("c_proj", width, model.inner, bias: bias, role: .down)
                plain("act", model.activation.className)
            }
        }
        let activation = model.activation.function
        model.forEachBlock { $0.feedForward = .plain(activation) }
        return try model.architecture()
    }
}
