import Foundation
import NibbleCore
import NibbleModels
import NibbleTestSupport
import Testing

/// What configs say about routers, and what files call their tensors.
@Suite struct RouterTests {
    private func config(_ name: String) throws -> JSONObject {
        let file = Fixtures.repository.appending(path: "Tests/Fixtures/trees/\(name).json")
        return try #require(try JSONValue(contentsOf: file)["config"]?.object)
    }

    private func read(_ config: JSONObject) throws -> ModelArchitecture { try ModelRegistry.architecture(ConfigReader(config)) }

    private func mixtures(_ architecture: ModelArchitecture) -> [ExpertsDescription] {
        architecture.decoder.layers.compactMap { if case .experts(let experts) = $0.feedForward { experts } else { nil } }
    }

    @Test(
        "families with DeepSeek-V3's router", arguments: ["glm4_moe", "exaone_moe", "solar_open", "dots1"])
    func deepSeek(name: String) throws {
        let router = try #require(mixtures(try read(config(name))).first).router
        #expect(router.scoring == .sigmoid && router.normalizes && router.floor == .added(1e-20))
        #expect(router.choiceBias == "gate.e_score_correction_bias")
        if name == "dots1" {
            #expect(router.groups == nil && router.scale == 2.5)
        } else {
            #expect(router.groups == .init(count: 2, chosen: 1, score: .sumOfBestTwo) && router.scale == 1.4)
        }
    }

    @Test("each family's own words")
    func words() throws {
        let ernie = try #require(mixtures(try read(config("ernie4_5_moe"))).first).router
        #expect(ernie.scoring == .softmax && ernie.floor == .atLeast(1e-12) && ernie.choiceBias != nil)
        let miniMax = try #require(mixtures(try read(config("minimax_m2"))).first).router
        #expect(miniMax.scoring == .sigmoid && miniMax.floor == .added(0) && miniMax.scale == 1 && miniMax.normalizes)
        let cohere = try #require(mixtures(try read(config("cohere2_moe"))).first)
        #expect(cohere.router.scoring == .sigmoid && cohere.router.scale == 0.5 && cohere.sharedScale == 0.5)
        let oss = try #require(mixtures(try read(config("gpt_oss"))).first)
        #expect(
            oss.router.scoring == .softmax && oss.router.normalizes
                && oss.activation == .gated(.clampedGLU(limit: 7, alpha: 1.702)))
    }

    @Test("Nemotron 3's experts have no gates, and may lie between projections", arguments: [nil, 12])
    func nemotron(latent: Int?) throws {
        var config = try config("nemotron_h")
        let fields: [(String, JSONValue)] = [
            ("hybrid_override_pattern", "ME*-E"), ("n_routed_experts", 8), ("num_experts_per_tok", 2),
            ("moe_intermediate_size", 20), ("moe_shared_expert_intermediate_size", 24), ("n_group", 2), ("topk_group", 1),
            ("routed_scaling_factor", 2.5),
        ]
        for (field, value) in fields { config[field] = value }
        config["layers_block_type"] = nil
        config["moe_latent_size"] = latent.map { .int($0) }
        let architecture = try read(config)
        try architecture.check()
        #expect(mixtures(architecture).count == 2)
        let experts = try #require(mixtures(architecture).first)
        #expect(experts.activation == .plain(.reluSquared) && experts.latent == latent && experts.width == 20)
        #expect(experts.router.groups == .init(count: 2, chosen: 1, score: .sumOfBestTwo) && experts.router.scale == 2.5)
        let shapes = Dictionary(uniqueKeysWithValues: architecture.tree.parameters.map { ($0.path, $0.shape) })
        let mixer = "model.layers.1.mixer."
        #expect(shapes[mixer + "experts.up_proj"] == [8, 20, latent ?? 18])
        #expect(shapes[mixer + "experts.down_proj"] == [8, latent ?? 18, 20])
        #expect(shapes[mixer + "shared_experts.up_proj.weight"] == [24, 18])
        #expect(shapes[mixer + "fc2_latent_proj.weight"] == latent.map { [18, $0] })
        #expect(architecture.keys.fileName(mixer + "gate.weight") == "backbone.layers.1.mixer.gate.weight")
    }

    @Test("dense layers come first")
    func dense() throws {
        let layers = try read(config("glm4_moe")).decoder.layers
        let isDense = layers.map { if case .gated = $0.feedForward { true } else { false } }
        #expect(isDense == [true, false, false])
    }

    @Test("ERNIE's mixtures are every so many layers between two, −1 being the last")
    func ernieLayers() throws {
        var config = try config("ernie4_5_moe")
        config["num_hidden_layers"] = 8
        config["moe_layer_start_index"] = 2
        config["moe_layer_end_index"] = -1
        config["moe_layer_interval"] = 2
        let sparse = try read(config).decoder.layers.indices.filter { index in
            if case .experts = try read(config).decoder.layers[index].feedForward { true } else { false }
        }
        #expect(sparse == [3, 5, 7])
    }

    @Test("the rotated share of MiniMax-M2 may be a number of elements")
    func rotaryElements() throws {
        var config = try config("minimax_m2")
        config["rope_parameters"] = nil
        config["rotary_dim"] = 8
        #expect(try read(config).decoder.rotary.map(\.rotated) == [8])
    }

    @Test("HunYuan's lists hold one number for all layers")
    func uniformLists() throws {
        var config = try config("hunyuan_v1_moe")
        config["moe_topk"] = [2, 2]
        #expect(mixtures(try read(config)).map(\.topK) == [2, 2])
        config["moe_topk"] = [2, 1]
        #expect(throws: ModelError.self) { try read(config) }
    }

    @Test("fields that contradict each other are refused by name")
    func refused() throws {
        for (field, value) in [("n_group", 3), ("topk_group", 3), ("num_experts_per_tok", 9)] as [(String, JSONValue)] {
            var config = try config("glm4_moe")
            config[field] = value
            let error = #expect(throws: ModelError.self) { try read(config) }
            #expect(error?.description.contains(field) == true, "\(error?.description ?? "")")
        }
    }

    @Test(
        "names of choice biases in files",
        arguments: [
            ("exaone_moe", "model.layers.1.mlp.e_score_correction_bias", "model.layers.1.mlp.gate.e_score_correction_bias"),
            (
                "ernie4_5_moe", "model.layers.1.mlp.moe_statics.e_score_correction_bias",
                "model.layers.1.mlp.gate.moe_statics.e_score_correction_bias"
            ),
            (
                "minimax_m2", "model.layers.1.block_sparse_moe.e_score_correction_bias",
                "model.layers.1.mlp.e_score_correction_bias"
            ),
        ])
    func names(name: String, file: String, tree: String) throws {
        let keys = try read(config(name)).keys
        #expect(keys.parameter(for: file) { $0 == tree } == tree)
        #expect(keys.fileName(tree) == file)
        // Files may also have the tree's name.
        #expect(keys.parameter(for: tree) { $0 == tree } == tree)
    }

    @Test("layers behind the last one are ignored, no others")
    func furtherLayers() throws {
        let keys = try read(config("glm4_moe")).keys
        #expect(keys.isIgnored("model.layers.3.eh_proj.weight") && keys.isIgnored("mtp.fc.weight"))
        #expect(!keys.isIgnored("model.layers.2.eh_proj.weight") && !keys.isIgnored("model.layers.30.eh_proj.weight"))
    }

    @Test("routers of these families are float32 in every load", arguments: ["glm4_moe", "ernie4_5_moe", "minimax_m2"])
    func storedDType(name: String) throws {
        let tree = try read(config(name)).tree
        let router = "model.layers.1.mlp.gate.weight"
        #expect(tree.storedDType(of: router, loadDType: .bfloat16) == (name == "minimax_m2" ? .bfloat16 : .float32))
        #expect(tree.storedDType(of: "model.layers.1.self_attn.q_proj.weight", loadDType: .bfloat16) == .bfloat16)
    }
}
