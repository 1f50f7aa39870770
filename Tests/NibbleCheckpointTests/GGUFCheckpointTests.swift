import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleTestSupport
import Testing

@Suite struct GGUFCheckpointTests {
    let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    /// Two query heads of size 4 over one key head; the values name their place in the Hugging Face matrix.
    private func builder(_ architecture: String, isInterleaved: Bool) -> GGUFBuilder {
        var builder = GGUFBuilder()
        builder.add("general.architecture", architecture)
        for (key, value) in [("embedding_length", 2), ("block_count", 1), ("feed_forward_length", 6), ("context_length", 64)]
            as [(String, UInt32)]
        {
            builder.add("\(architecture).\(key)", value)
        }
        builder.add("\(architecture).attention.head_count", UInt32(2))
        builder.add("\(architecture).attention.head_count_kv", UInt32(1))
        builder.add("\(architecture).attention.layer_norm_rms_epsilon", Float(1e-5))
        builder.add("\(architecture).rope.freq_base", Float(100_000))
        builder.add("tokenizer.ggml.eos_token_id", UInt32(2))
        builder.add("token_embd.weight", [3, 2], floats: [1, 2, 3, 4, 5, 6])
        builder.add("blk.0.attn_norm.weight", [2], floats: [1.5, 3])
        // The converter turns rows 0 1 2 3 of a head into 0 2 1 3.
        let order = isInterleaved ? [0, 2, 1, 3] : [0, 1, 2, 3]
        let bothHeads = order + order.map { $0 + 4 }
        builder.add("blk.0.attn_q.weight", [8, 2], floats: Self.rows(bothHeads))
        builder.add("blk.0.attn_q.bias", [8], floats: bothHeads.map { Float($0) })
        builder.add("blk.0.attn_k.weight", [4, 2], floats: Self.rows(order))
        builder.add("rope_freqs.weight", [1], floats: [1])
        return builder
    }

    private static func rows(_ numbers: [Int]) -> [Float] {
        var values: [Float] = []
        for number in numbers { values += [Float(number), Float(100 + number)] }
        return values
    }

    private func open(_ builder: GGUFBuilder) throws -> GGUFCheckpoint {
        try #require(CheckpointFiles.open(file: folder.write(builder.bytes(), to: "model.gguf")) as? GGUFCheckpoint)
    }

    @Test("what the converter changed is undone", arguments: [("llama", true), ("qwen2", false), ("gemma", false)])
    func values(architecture: String, isInterleaved: Bool) throws {
        let checkpoint = try open(builder(architecture, isInterleaved: isInterleaved))
        let layer = "model.layers.0."
        #expect(
            checkpoint.names == [
                "model.embed_tokens.weight", layer + "input_layernorm.weight", layer + "self_attn.k_proj.weight",
                layer + "self_attn.q_proj.bias",
                layer + "self_attn.q_proj.weight",
            ])
        #expect(try checkpoint.tensor(layer + "self_attn.q_proj.weight").floats == Self.rows(Array(0..<8)))
        #expect(try checkpoint.tensor(layer + "self_attn.q_proj.bias").floats == (0..<8).map { Float($0) })
        #expect(try checkpoint.tensor(layer + "self_attn.k_proj.weight").floats == Self.rows(Array(0..<4)))
        let norm = try checkpoint.tensor(layer + "input_layernorm.weight").floats
        #expect(norm == (architecture == "gemma" ? [0.5, 2] : [1.5, 3]))
        #expect(checkpoint.descriptor("model.embed_tokens.weight")?.isContiguous == true)
        #expect(checkpoint.descriptor(layer + "self_attn.q_proj.weight")?.isContiguous == !isInterleaved)
        #expect(checkpoint.descriptor(layer + "input_layernorm.weight")?.isContiguous == (architecture != "gemma"))
        expectCheckpointError(naming: checkpoint.file.url, containing: "rope_freqs.weight") {
            try checkpoint.tensor("rope_freqs.weight")
        }
    }

    @Test(
        "the configuration is Hugging Face's",
        arguments: [("llama", "LlamaForCausalLM"), ("qwen2", "Qwen2ForCausalLM"), ("gemma", "GemmaForCausalLM")])
    func config(architecture: String, className: String) throws {
        var builder = builder(architecture, isInterleaved: architecture == "llama")
        builder.add("\(architecture).rope.scaling.type", "linear")
        builder.add("\(architecture).rope.scaling.factor", Float(2))
        var expected: JSONObject = [
            "architectures": [.string(className)], "model_type": .string(architecture), "hidden_size": 2, "num_hidden_layers": 1,
            "intermediate_size": 6, "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-05,
            "rope_theta": .double(100_000),
            "max_position_embeddings": 64, "vocab_size": 3, "eos_token_id": 2, "tie_word_embeddings": true,
            "rope_scaling": ["rope_type": "linear", "factor": .double(2)], "dtype": "float32",
        ]
        expected[architecture == "gemma" ? "hidden_activation" : "hidden_act"] =
            architecture == "gemma" ? "gelu_pytorch_tanh" : "silu"
        if architecture != "qwen2" { expected["attention_bias"] = true }
        #expect(try open(builder).config == expected)
    }

    @Test("names are mapped for the architectures that are known, and no others")
    func names() {
        let pairs = [
            ("token_embd.weight", "model.embed_tokens.weight"), ("output_norm.weight", "model.norm.weight"),
            ("output.weight", "lm_head.weight"),
            ("blk.12.attn_v.bias", "model.layers.12.self_attn.v_proj.bias"),
            ("blk.0.attn_output.weight", "model.layers.0.self_attn.o_proj.weight"),
            ("blk.1.ffn_norm.weight", "model.layers.1.post_attention_layernorm.weight"),
            ("blk.1.ffn_gate.weight", "model.layers.1.mlp.gate_proj.weight"),
            ("blk.1.ffn_up.weight", "model.layers.1.mlp.up_proj.weight"),
            ("blk.1.ffn_down.weight", "model.layers.1.mlp.down_proj.weight"),
        ]
        for (gguf, huggingFace) in pairs {
            for architecture in ["llama", "qwen2", "gemma"] {
                #expect(GGUFNames.huggingFaceName(gguf, architecture: architecture) == huggingFace)
            }
            #expect(GGUFNames.huggingFaceName(gguf, architecture: "bert") == nil)
        }
        for other in [
            "", "rope_freqs.weight", "blk.x.attn_q.weight", "blk.0.attn_q", "blk.0.ffn_gate_exps.weight", "blk.-1.attn_q.weight",
            "output.weight.x",
        ] {
            #expect(GGUFNames.huggingFaceName(other, architecture: "llama") == nil)
        }
    }

    @Test("each expert's matrix is a part of the file's tensor") func experts() throws {
        var builder = builder("llama", isInterleaved: true)
        builder.add("llama.expert_count", UInt32(2))
        builder.add("llama.expert_used_count", UInt32(1))
        builder.add("blk.0.ffn_gate_inp.weight", [2, 2], floats: [1, 2, 3, 4])
        builder.add("blk.0.ffn_gate_exps.weight", [2, 1, 2], floats: [1, 2, 3, 4])
        // As files of 2023 have it.
        builder.add("blk.0.ffn_up.1.weight", [1, 2], floats: [5, 6])
        // Q8_0: a half as scale and 32 codes.
        let blocks = [(Float16(0.5), UInt8(3)), (2, 5)].flatMap { scale, code in
            littleEndian(scale.bitPattern) + [UInt8](repeating: code, count: 32)
        }
        builder.tensors.append(.init(name: "blk.0.ffn_down_exps.weight", type: 8, extents: [32, 1, 2], data: blocks))
        let checkpoint = try open(builder)
        let block = "model.layers.0.block_sparse_moe."
        #expect(checkpoint.config["model_type"] == "mixtral")
        #expect(checkpoint.config["num_local_experts"] == 2 && checkpoint.config["num_experts_per_tok"] == 1)
        #expect(
            checkpoint.names.filter { $0.hasPrefix(block) } == [
                block + "experts.0.w1.weight", block + "experts.0.w2.weight", block + "experts.1.w1.weight",
                block + "experts.1.w2.weight", block + "experts.1.w3.weight", block + "gate.weight",
            ])
        #expect(try checkpoint.tensor(block + "experts.1.w1.weight").floats == [3, 4])
        let (first, second) = (
            try #require(checkpoint.descriptor(block + "experts.0.w1.weight")),
            try #require(checkpoint.descriptor(block + "experts.1.w1.weight"))
        )
        #expect(second.shape == [1, 2] && second.isContiguous && second.byteOffset == first.byteOffset + 8)
        for (index, value) in [Float(1.5), 10].enumerated() {
            let tensor = try checkpoint.tensor(block + "experts.\(index).w2.weight")
            #expect(tensor.shape == [1, 32] && tensor.floats == Array(repeating: value, count: 32))
        }
    }

    @Test("what Granite's converter split is joined, expert by expert") func joined() throws {
        func granite(_ up: [UInt64]) -> GGUFBuilder {
            var builder = builder("granitemoe", isInterleaved: true)
            builder.add("granitemoe.expert_count", UInt32(2))
            builder.add("granitemoe.expert_used_count", UInt32(1))
            builder.add("blk.0.ffn_gate_exps.weight", [2, 1, 2], floats: [1, 2, 3, 4])
            builder.add("blk.0.ffn_up_exps.weight", up, floats: [5, 6, 7, 8])
            builder.add("blk.0.ffn_gate_shexp.weight", [1, 2], floats: [1, 2])
            builder.add("blk.0.ffn_up_shexp.weight", [1, 2], floats: [3, 4])
            return builder
        }
        let checkpoint = try open(granite([2, 1, 2]))
        #expect(checkpoint.config["model_type"] == "granitemoeshared")
        #expect(checkpoint.config["shared_intermediate_size"] == 1)
        let experts = "model.layers.0.block_sparse_moe.input_linear.weight"
        #expect(checkpoint.descriptor(experts)?.shape == [2, 2, 2] && checkpoint.descriptor(experts)?.isContiguous == false)
        #expect(try checkpoint.tensor(experts).floats == [1, 2, 5, 6, 3, 4, 7, 8])
        let shared = try checkpoint.tensor("model.layers.0.shared_mlp.input_linear.weight")
        #expect(shared.shape == [2, 2] && shared.floats == [1, 2, 3, 4])
        expectCheckpointError(naming: folder.url, containing: "blk.0.ffn_up_exps.weight") { try open(granite([2, 2, 1])) }
    }

    @Test("Phi-3's rotated share, window and factors come from the metadata") func phi3() throws {
        var builder = builder("phi3", isInterleaved: false)
        for (key, value) in [
            ("attention.key_length", 4), ("rope.dimension_count", 3), ("attention.sliding_window", 0),
            ("rope.scaling.original_context_length", 16),
        ] as [(String, UInt32)] {
            builder.add("phi3.\(key)", value)
        }
        builder.add("phi3.rope.scaling.attn_factor", Float(1.25))
        builder.add("rope_factors_long.weight", [1], floats: [2])
        builder.add("rope_factors_short.weight", [1], floats: [1.5])
        let config = try open(builder).config
        #expect(config["partial_rotary_factor"] == 0.75 && config["sliding_window"] == .null)
        #expect(config["original_max_position_embeddings"] == 16)
        #expect(
            config["rope_scaling"] == [
                "rope_type": "longrope", "short_factor": [1.5], "long_factor": [.double(2)], "attention_factor": 1.25,
                "original_max_position_embeddings": 16,
            ])
    }

    @Test("a Phi-3 file has both lists of factors or none", arguments: ["rope_factors_long", "rope_factors_short"])
    func factors(name: String) throws {
        var builder = builder("phi3", isInterleaved: false)
        builder.add("\(name).weight", [1], floats: [2])
        let other = name == "rope_factors_long" ? "rope_factors_short" : "rope_factors_long"
        expectCheckpointError(naming: folder.url, containing: "\(other).weight") { try open(builder) }
    }

    @Test("files that are not one model that is read are refused by what they are") func otherFiles() throws {
        func expect(_ words: String, of architecture: String = "llama", _ change: (inout GGUFBuilder) -> Void) throws {
            var builder = builder(architecture, isInterleaved: true)
            change(&builder)
            expectCheckpointError(naming: folder.url, containing: words) { try open(builder) }
        }
        try expect("LoRA adapter") { $0.add("general.type", "adapter") }
        try expect("mixture-of-experts", of: "gemma") { $0.add("gemma.expert_count", UInt32(4)) }
        try expect("mixture-of-experts", of: "gemma") { $0.add("blk.0.ffn_up_exps.weight", [1, 1], floats: [1]) }
        try expect("llama.expert_used_count") { $0.add("llama.expert_count", UInt32(4)) }
        try expect("llama.expert_count") { $0.add("blk.0.ffn_up_exps.weight", [1, 1], floats: [1]) }
        try expect("qwen3moe.expert_count", of: "qwen3moe") { _ in }
        try expect("GLM-4 vision", of: "glm4") { $0.add("glm4.rope.dimension_sections", UInt32(1)) }
        try expect("llama.attention.layer_norm_rms_epsilon") {
            $0.metadata.removeAll { $0.key == "llama.attention.layer_norm_rms_epsilon" }
        }
        var dense = builder("llama", isInterleaved: true)
        dense.add("llama.expert_count", UInt32(0))
        dense.add("general.type", "model")
        #expect(try open(dense).names.isEmpty == false)
    }

    @Test("ids that a file leaves out are those of llama.cpp", arguments: [("llama", 1, 2), ("gpt2", 11, 11)])
    func defaultTokens(model: String, bos: Int, eos: Int) throws {
        var builder = builder("llama", isInterleaved: true)
        builder.metadata.removeAll { $0.key == "tokenizer.ggml.eos_token_id" }
        builder.add("tokenizer.ggml.model", model)
        let tokens = (0..<12).flatMap { GGUFBuilder.text("t\($0)") }
        builder.metadata.append(("tokenizer.ggml.tokens", 9, littleEndian(UInt32(8)) + littleEndian(UInt64(12)) + tokens))
        let config = try open(builder).config
        #expect(config["bos_token_id"] == .int(bos) && config["eos_token_id"] == .int(eos))
    }

    @Test("another architecture, or heads that do not divide the rows, are refused")
    func refusals() throws {
        expectCheckpointError(naming: folder.url, containing: "bert") { try open(builder("bert", isInterleaved: false)) }
        for heads in [0, 3, 4, 8] as [UInt32] {
            var builder = builder("llama", isInterleaved: true)
            builder.metadata.removeAll { $0.key == "llama.attention.head_count_kv" }
            builder.add("llama.attention.head_count_kv", heads)
            expectCheckpointError(naming: folder.url, containing: "blk.0.attn_k.weight", "\(heads) heads") { try open(builder) }
        }
    }
}
