import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleModels
import NibbleTestSupport

/// Checkpoints of tiny models with random weights, made from their config alone.
enum RandomCheckpoint {
    /// A folder with `config.json` and float32 weights. The caller removes it.
    static func folder(_ config: JSONObject, seed: UInt64 = 1) throws -> URL {
        let folder = try Fixtures.temporaryFolder()
        try Data(JSONValue.object(config).encoded().utf8).write(to: folder.appending(path: "config.json"))
        let tree = try ModelRegistry.architecture(ConfigReader(config)).tree
        let parameters = tree.parameters.filter { $0.tiedTo == nil }
        var tensors = parameters.enumerated().map { index, parameter in
            (name: parameter.path, tensor: values(parameter, seed: seed, stream: UInt64(index)))
        }
        for (index, (path, buffer)) in tree.persistentBuffers.enumerated() {
            let numbers = (0..<buffer.count).map { draw(seed, 1000 + UInt64(index), $0) * 0.5 }
            tensors.append((path, .host(numbers, .float32, [buffer.count])))
        }
        try SafetensorsWriter().write(tensors, to: folder.appending(path: "model.safetensors"))
        return folder
    }

    /// Uniform in −1 ... 1.
    private static func draw(_ seed: UInt64, _ stream: UInt64, _ counter: Int) -> Float {
        2 * RandomStream.uniform(seed: seed, stream: stream, counter: UInt64(counter)) - 1
    }

    /// Numbers that leave activations near 1.
    private static func values(_ parameter: LocatedParameter, seed: UInt64, stream: UInt64) -> Tensor {
        let shape = parameter.shape
        var (mean, scale): (Float, Float) = (0, 0.5)
        if case .norm(let norm) = parameter.module.node.kind {
            (mean, scale) = (1 - norm.weightOffset, 0.2)
        } else if shape.rank > 1 {
            scale = parameter.module.node.role == .tokenEmbedding ? 1 : 1.7 / Float(shape.last).squareRoot()
        }
        return .host((0..<shape.count).map { mean + scale * draw(seed, stream, $0) }, .float32, shape)
    }
}

/// Configs of tiny recurrent models.
enum RecurrentConfigs {
    static let all: [String: JSONObject] = [
        "lfm2": [
            "model_type": "lfm2", "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
            "intermediate_size": 48, "block_auto_adjust_ff_dim": false, "layer_types": ["conv", "full_attention", "conv"],
            "vocab_size": 64, "max_position_embeddings": 4096, "conv_bias": true,
        ],
        "lfm2_moe": [
            "model_type": "lfm2_moe", "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
            "num_key_value_heads": 2, "intermediate_size": 48, "layer_types": ["conv", "full_attention", "conv"],
            "num_dense_layers": 1, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "vocab_size": 64,
            "max_position_embeddings": 4096,
        ],
        "qwen3_5": [
            "model_type": "qwen3_5_text", "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 40, "vocab_size": 64,
            "max_position_embeddings": 4096, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
            "linear_key_head_dim": 8, "linear_value_head_dim": 8, "full_attention_interval": 3,
        ],
        "qwen3_next": [
            "model_type": "qwen3_next", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 40, "vocab_size": 64,
            "max_position_embeddings": 4096, "linear_num_key_heads": 2, "linear_num_value_heads": 6,
            "linear_key_head_dim": 8, "linear_value_head_dim": 4, "full_attention_interval": 2, "num_experts": 4,
            "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 24,
        ],
        "mamba2": [
            "model_type": "mamba2", "hidden_size": 16, "num_hidden_layers": 2, "num_heads": 4, "head_dim": 8, "state_size": 8,
            "n_groups": 2, "conv_kernel": 4, "expand": 2, "vocab_size": 64,
        ],
        // Attention and Mamba 2 side by side.
        "falcon_h1": [
            "model_type": "falcon_h1", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 40, "vocab_size": 64,
            "max_position_embeddings": 4096, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 2,
            "mamba_d_state": 8, "mamba_rms_norm": true, "key_multiplier": 0.5, "ssm_multipliers": [0.7, 1.1, 0.9, 1.2, 0.8],
        ],
        // Experts without gates, between projections.
        "nemotron_h": [
            "model_type": "nemotron_h", "hidden_size": 32, "intermediate_size": 40,
            "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"], "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 16, "mamba_num_heads": 4, "mamba_head_dim": 8, "n_groups": 2,
            "ssm_state_size": 8, "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 24,
            "moe_shared_expert_intermediate_size": 20, "moe_latent_size": 16, "n_group": 2, "topk_group": 1,
            "routed_scaling_factor": 1.5, "vocab_size": 64, "max_position_embeddings": 4096,
        ],
        // Without keys and values at all.
        "delta only": [
            "model_type": "qwen3_5_text", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 40, "vocab_size": 64,
            "max_position_embeddings": 4096, "linear_num_key_heads": 2, "linear_num_value_heads": 2,
            "linear_key_head_dim": 8, "linear_value_head_dim": 8, "layer_types": ["linear_attention", "linear_attention"],
        ],
    ]

    static let names = all.keys.sorted()

    static func folder(_ name: String) throws -> URL { try RandomCheckpoint.folder(all[name] ?? [:]) }
}
