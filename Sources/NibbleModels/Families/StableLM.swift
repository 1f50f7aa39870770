import NibbleCore

/// StableLM 3B, 2 1.6B and 2 12B (arXiv 2402.17834): Llama with layer norms and a quarter of every head rotated; the 12B
/// model runs its sublayers side by side and normalizes every head's query and key with weights of its own.
///
///     nibble generate stabilityai/stablelm-2-1_6b --load-in-4bit --quant-type nf4 "The capital of France is"
enum StableLM {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled(["num_key_value_heads": 32, "max_position_embeddings": 4096])
        let epsilon = try config.float("layer_norm_eps", default: 1e-5)
        let isParallel = try config.bool("use_parallel_residual", default: false)
        var model = try LlamaLike(config, "StableLm", rotary: .init(defaultShare: 0.25))
        model.queryKeyValueBias = try config.bool("use_qkv_bias", default: false)
        let width = model.width
        model.norm = { layerNorm($0, width, epsilon, role: $1) }
        model.blockEnd =
            [model.norm("input_layernorm", .attentionNorm)]
            + (isParallel ? [] : [model.norm("post_attention_layernorm", .feedForwardNorm)]) + [dropout("dropout")]
        model.forEachBlock { $0.isParallel = isParallel }
        if try config.bool("qk_layernorm", default: false) {
            let headSize = model.headSize
            func norms(_ name: String, _ heads: Int, _ role: Role) -> ModuleNode {
                module(name, "StableLmLayerNormPerHead", role: role) {
                    list("norms", heads) { layerNorm($1, headSize, epsilon, bias: false, role: nil) }
                }
            }
            model.attentionEnd = [
                norms("q_layernorm", model.heads, .queryNorm), norms("k_layernorm", model.keyValueHeads, .keyNorm),
            ]
        }
        return try model.architecture()
    }
}
