import Foundation
import Nibble
import NibbleCheckpoint
import NibbleCore
import NibbleTestSupport
import Testing

/// Recorded checkpoints, converted to GGUF files as llama.cpp's converter does it, answer what the reference answered.
@Suite struct GGUFConversionTests {
    private static let experts = [
        "mlp.gate": "ffn_gate_inp", "mlp.experts.gate_proj": "ffn_gate_exps", "mlp.experts.up_proj": "ffn_up_exps",
        "mlp.experts.down_proj": "ffn_down_exps", "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
        "mlp.shared_expert.gate_proj": "ffn_gate_shexp", "mlp.shared_expert.up_proj": "ffn_up_shexp",
        "mlp.shared_expert.down_proj": "ffn_down_shexp",
    ]
    private static let mixtral = [
        "block_sparse_moe.gate": "ffn_gate_inp", "block_sparse_moe.experts.w1": "ffn_gate_exps",
        "block_sparse_moe.experts.w2": "ffn_down_exps", "block_sparse_moe.experts.w3": "ffn_up_exps",
    ]
    private static let granite = [
        "block_sparse_moe.router.layer": "ffn_gate_inp", "block_sparse_moe.gate": "ffn_gate_exps",
        "block_sparse_moe.up": "ffn_up_exps", "block_sparse_moe.output_linear": "ffn_down_exps",
        "shared_mlp.gate": "ffn_gate_shexp", "shared_mlp.up": "ffn_up_shexp", "shared_mlp.output_linear": "ffn_down_shexp",
    ]
    private static let counts = [
        ("expert_count", "num_experts"), ("expert_count", "num_local_experts"), ("expert_used_count", "num_experts_per_tok"),
    ]
    private static let widths = [
        ("expert_feed_forward_length", "moe_intermediate_size"),
        ("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
    ]
    private static let graniteKeys = [
        ("attention.scale", "attention_multiplier"), ("embedding_scale", "embedding_multiplier"),
        ("residual_scale", "residual_multiplier"), ("logit_scale", "logits_scaling"),
        ("expert_shared_feed_forward_length", "shared_intermediate_size"),
    ]
    private static let phi3Keys = [
        ("attention.sliding_window", "sliding_window"),
        ("rope.scaling.original_context_length", "original_max_position_embeddings"),
    ]
    private static let cohere2Keys = [
        ("attention.sliding_window", "sliding_window"), ("attention.layer_norm_epsilon", "layer_norm_eps"),
        ("logit_scale", "logit_scale"),
    ]
    private static let phi3 = ["self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"]
    private static let glm4 = [
        "mlp.gate_up_proj": "ffn_up", "post_self_attn_layernorm": "post_attention_norm", "post_mlp_layernorm": "post_ffw_norm",
    ]

    /// By the name of the recorded model.
    private static func conversion(_ name: String) -> GGUFConversion? {
        switch name {
        case "qwen3_moe":
            GGUFConversion(
                architecture: "qwen3moe", keys: counts + widths, names: experts, merged: { $0.stackExperts() })
        case "qwen2_moe":
            GGUFConversion(
                architecture: "qwen2moe", keys: counts + widths, names: experts,
                merged: {
                    $0.stackExperts()
                    $0.squeezeGates()
                })
        case "olmoe":
            GGUFConversion(
                architecture: "olmoe", keys: counts + [("attention.clamp_kqv", "clip_qkv")], names: experts,
                merged: { $0.stackExperts() })
        case "mixtral":
            GGUFConversion(
                architecture: "llama", keys: counts, names: mixtral, interleavesHeads: true, merged: { $0.stackExperts() })
        case "granitemoe", "granitemoeshared":
            GGUFConversion(
                architecture: "granitemoe", keys: counts + graniteKeys, names: granite, interleavesHeads: true,
                merged: { $0.splitInputs() })
        case "phi3", "phi3_longrope": GGUFConversion(architecture: "phi3", keys: phi3Keys, names: phi3)
        case "cohere2": GGUFConversion(architecture: "cohere2", keys: cohere2Keys)
        case "glm4": GGUFConversion(architecture: "glm4", names: glm4)
        case "ernie4_5": GGUFConversion(architecture: "ernie4_5")
        case "nemotron":
            GGUFConversion(architecture: "nemotron", keys: [("attention.layer_norm_epsilon", "norm_eps")], addsOne: true)
        default: nil
        }
    }

    private static let models = FixtureModel.all.filter { conversion($0.name) != nil }

    private static let mixtures = models.filter { conversion($0.name)?.names.values.contains("ffn_gate_inp") == true }

    private static func model(_ name: String) throws -> FixtureModel { try #require(models.first { $0.name == name }) }

    private func write(_ builder: GGUFBuilder) throws -> URL {
        let url = try Fixtures.temporaryFolder().appending(path: "converted.gguf")
        try Data(builder.bytes()).write(to: url)
        return url
    }

    @Test("logits are those of the model that was converted", arguments: models)
    func logits(model: FixtureModel) throws {
        let url = try write(#require(Self.conversion(model.name)).builder(model))
        defer { try? FileManager.default.removeItem(at: url.deletingLastPathComponent()) }
        let pretrained = try PretrainedModel.load(folder: url, model.configuration())
        #expect(pretrained.report.unexpected.isEmpty)
        #expect(try model.error(pretrained, against: "logits") < model.float32Bound)
    }

    @Test("mixtures are quantized as those of a folder, and written", arguments: mixtures)
    func quantized(model: FixtureModel) throws {
        let url = try write(#require(Self.conversion(model.name)).builder(model))
        defer { try? FileManager.default.removeItem(at: url.deletingLastPathComponent()) }
        var configuration = LoadConfiguration()
        configuration.dtype = .float32
        configuration.quantization = BitsAndBytesConfig(loadIn4Bit: true)
        let ids = try #require(try model.recorded().ids("input_ids"))
        let converted = try PretrainedModel.load(folder: url, configuration)
        let folder = try PretrainedModel.load(folder: model.folder, configuration)
        #expect(converted.report.quantizedModules == folder.report.quantizedModules)
        let written = url.deletingLastPathComponent().appending(path: "written")
        try CheckpointExport.quantizedModel(url, to: written, configuration)
        let reloaded = try PretrainedModel.load(folder: written)
        #expect(reloaded.report.unexpected.isEmpty)
        let logits = try [converted, folder, reloaded].map { try $0.forward(inputIDs: ids).logits }
        let areEqual = withExtendedLifetime(logits) { logits.map { $0.hostBytes.elementsEqual(logits[0].hostBytes) } }
        #expect(areEqual == [true, true, true])
    }

    @Test(
        "a mixture whose counts and tensors disagree is refused by the tensor's name",
        arguments: [
            ("count", "blk.0.ffn_down_exps.weight"), ("rank", "blk.1.ffn_up_exps.weight"), ("none", "qwen3moe.expert_count"),
            ("used", "qwen3moe.expert_used_count"), ("missing", "model.layers.1.mlp.experts.0.up_proj.weight"),
            ("gating", "qwen3moe.expert_gating_func"),
        ])
    func refusals(change: String, mentions: String) throws {
        var builder = try #require(Self.conversion("qwen3_moe")).builder(Self.model("qwen3_moe"))
        let index = try #require(builder.tensors.firstIndex { $0.name == "blk.1.ffn_up_exps.weight" })
        switch change {
        case "count", "none": builder.metadata.removeAll { $0.key == "qwen3moe.expert_count" }
        case "used": builder.metadata.removeAll { $0.key == "qwen3moe.expert_used_count" }
        case "rank": builder.tensors[index].extents = [36, 60]
        case "gating": builder.add("qwen3moe.expert_gating_func", UInt32(2))
        default: builder.tensors.remove(at: index)
        }
        if change == "count" { builder.add("qwen3moe.expert_count", UInt32(6)) }
        let url = try write(builder)
        defer { try? FileManager.default.removeItem(at: url.deletingLastPathComponent()) }
        let error = #expect(throws: (any Error).self) { try PretrainedModel.load(folder: url) }
        let text = error.map { "\($0)" } ?? ""
        #expect(text.contains(mentions) && text.contains("converted.gguf"), "\(text)")
    }
}
