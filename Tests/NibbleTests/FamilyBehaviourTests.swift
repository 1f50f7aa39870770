import Foundation
import Nibble
import NibbleCheckpoint
import NibbleCore
import NibbleGeneration
import NibbleModels
import NibbleTestSupport
import Testing

/// What families do beyond the reference, or refuse.
@Suite(.computing) struct FamilyBehaviourTests {
    private func model(_ name: String) throws -> FixtureModel {
        try #require(FixtureModel.all.first { $0.name == name })
    }

    @Test(
        "experts are quantized unless the reference is followed", arguments: ["qwen3_moe", "glm4_moe_tiny", "gpt_oss_tiny"],
        ["nf4", "int8"])
    func experts(name: String, kind: String) throws {
        let model = try model(name)
        var configuration = try model.configuration(try model.expected()["quantized"]?[kind]?["config"])
        let reference = try PretrainedModel.load(folder: model.folder, configuration)
        configuration.followsReference = false
        let ours = try PretrainedModel.load(folder: model.folder, configuration)

        let added = Set(ours.report.quantizedModules).subtracting(reference.report.quantizedModules)
        #expect(added == Set((name == "glm4_moe_tiny" ? [1] : [0, 1]).map { "model.layers.\($0).mlp.experts" }))
        #expect(ours.memoryFootprint < reference.memoryFootprint)
        let error = try model.error(ours, against: "logits")
        #expect(error > 1e-3 && error < (kind == "nf4" ? 0.5 : 0.1), "\(error)")
    }

    @Test("a prompt beyond the learned positions is refused")
    func positions() throws {
        let pretrained = try model("gpt_neo").load()
        let session = try pretrained.model.makeSession(SessionRequest(rows: 1, capacity: 64))
        _ = try session.feed([RowTokens(row: 0, tokens: Array(repeating: 5, count: 40))], logits: .last) { $0.rows }
        #expect(throws: SessionError.positionOutOfRange(position: 40, positions: 40)) {
            try session.feed([RowTokens(row: 0, tokens: [5])], logits: .last) { $0.rows }
        }
    }

    @Test(
        "padding before an encoder's input moves the positions of those families that count it",
        arguments: [
            ("pegasus", true), ("marian", true), ("t5", false), ("umt5", false),
        ])
    func encoderPadding(name: String, counts: Bool) throws {
        let pretrained = try model(name).load()
        let (ids, mask): ([Int32], [Int32]) = ([1, 1, 8, 9, 10], [0, 0, 1, 1, 1])
        let padded = try pretrained.forward(inputIDs: [ids], attentionMask: [mask], decoderInputIDs: [[1, 7]])
        let bare = try pretrained.forward(inputIDs: [[8, 9, 10]], decoderInputIDs: [[1, 7]])
        let (a, b) = (padded.logits.hostElements(Float.self), bare.logits.hostElements(Float.self))
        try #require(a.count == b.count && a.allSatisfy(\.isFinite) && b.allSatisfy(\.isFinite))
        let difference = zip(a, b).map { abs($0 - $1) }.max() ?? 0
        if counts { #expect(difference > 1e-3) } else { #expect(difference == 0) }
    }

    @Test("an encoder's input beyond its table of positions is refused")
    func longEncoderInput() throws {
        let pretrained = try model("pegasus").load()
        #expect(throws: SessionError.positionOutOfRange(position: 40, positions: 40)) {
            try pretrained.forward(inputIDs: [[Int32](repeating: 9, count: 41)], decoderInputIDs: [[1, 7]])
        }
    }

    @Test("positions that are a table end a text there, and give the tokens that fit", arguments: ["gpt_neo", "opt_bare"])
    func tableEnds(name: String) async throws {
        let pretrained = try model(name).load()
        let limit = try #require(pretrained.model.positionLimit)
        var config = GenerationConfig(maxNewTokens: 20, doSample: false)
        config.eosTokenId = []
        func generate(_ length: Int) async throws -> GenerationOutput {
            try await pretrained.generate(
                GenerationRequest(inputs: [(0..<length).map { Int32($0 % 9 + 3) }], config: config))
        }
        // The last token is chosen, not fed.
        for length in [limit - 3, limit - 1, limit] {
            let output = try await generate(length)
            #expect(output.sequences[0].count == limit + 1)
            #expect(output.warnings.contains(.cutToPositions(length: length + 20, positions: limit)))
        }
        #expect(try await generate(limit - 19).warnings.isEmpty)
        await #expect(throws: GenerationError.promptTooLong(length: limit + 1, maximum: limit)) { try await generate(limit + 1) }
    }

    @Test(
        "rotary positions, linear biases and relative ones go on beyond the length a model was made for",
        arguments: ["llama", "bloom", "qwen2_window", "llama_yarn", "llama_ntk", "phi3_longrope", "mpt_clipped"])
    func goesOn(name: String) async throws {
        let pretrained = try model(name).load()
        #expect(pretrained.model.positionLimit == nil)
        let made = pretrained.model.maximumPositions ?? 64
        for length in [made - 2, made, made + 30] {
            var config = GenerationConfig(maxNewTokens: 5, doSample: false)
            config.eosTokenId = []
            let request = GenerationRequest(inputs: [(0..<length).map { Int32($0 % 9 + 3) }], config: config)
            let output = try await pretrained.generate(request)
            #expect(output.sequences[0].count == length + 5)
            let warned = output.warnings.count { if case .beyondModelPositions = $0 { true } else { false } }
            #expect(warned == (pretrained.model.maximumPositions == nil ? 0 : 1))
        }
    }

    @Test("projections around experts may be multiplied into them")
    func latentExperts() throws {
        var config = try #require(RecurrentConfigs.all["nemotron_h"])
        let folder = try RandomCheckpoint.folder(config)
        let folded = try Fixtures.temporaryFolder()
        defer { for folder in [folder, folded] { try? FileManager.default.removeItem(at: folder) } }
        let checkpoint = try CheckpointFiles.open(file: folder.appending(path: "model.safetensors"))
        config["moe_latent_size"] = nil
        try Data(JSONValue.object(config).encoded().utf8).write(to: folded.appending(path: "config.json"))
        let mixer = "model.layers.1.mixer."
        let (before, after) = (
            try checkpoint.tensor(mixer + "fc1_latent_proj.weight"), try checkpoint.tensor(mixer + "fc2_latent_proj.weight")
        )
        let tensors = try checkpoint.names.filter { !$0.contains("latent_proj") }.map { name in
            let tensor = try checkpoint.tensor(name)
            // [X, F, L] × [L, E] and [E, L] × [X, L, F]
            return switch String(name.dropFirst(mixer.count)) {
            case "experts.up_proj": (name: name, tensor: stacked(tensor) { product($0, before) })
            case "experts.down_proj": (name: name, tensor: stacked(tensor) { product(after, $0) })
            default: (name: name, tensor: tensor)
            }
        }
        try SafetensorsWriter().write(tensors, to: folded.appending(path: "model.safetensors"))
        var configuration = LoadConfiguration()
        configuration.dtype = .float32
        let (found, wanted) = try (
            PretrainedModel.load(folder: folder, configuration), PretrainedModel.load(folder: folded, configuration)
        )
        let ids: [Int32] = [3, 9, 4, 7, 5, 11, 30, 2]
        func logits(_ model: PretrainedModel) throws -> [Float] {
            let output = try model.forward(inputIDs: [ids])
            return Array(output.logits.hostElements(Float.self))
        }
        let (a, b) = (try logits(found), try logits(wanted))
        try #require(a.count == b.count && Set(a.map { ($0 * 1000).rounded() }).count > 100)
        let difference = zip(a, b).map { abs($0 - $1) }.max() ?? 0
        #expect(difference < 1e-4, "\(difference) of up to \(a.map(abs).max() ?? 0)")
    }

    /// Each matrix of [X, N, K] through `change`.
    private func stacked(_ tensor: Tensor, _ change: (Tensor) -> Tensor) -> Tensor {
        let matrices = (0..<tensor.shape[0]).map {
            change(tensor.rows($0..<$0 + 1).viewed(as: [tensor.shape[1], tensor.shape[2]]))
        }
        return .host(
            matrices.flatMap { Array($0.hostElements(Float.self)) }, .float32,
            [matrices.count, matrices[0].shape[0], matrices[0].shape[1]])
    }

    private func product(_ a: Tensor, _ b: Tensor) -> Tensor {
        let (rows, depth, columns) = (a.shape[0], a.shape[1], b.shape[1])
        let (left, right) = (a.hostElements(Float.self), b.hostElements(Float.self))
        let values = (0..<rows * columns).map { index in
            (0..<depth).reduce(Float(0)) {
                $0 + left[index / columns * depth + $1] * right[$1 * columns + index % columns]
            }
        }
        return .host(values, .float32, [rows, columns])
    }

    @Test("the multiplier of residuals holds for mixtures too", arguments: ["qwen3_moe", "qwen2_moe"])
    func scaledMixture(name: String) throws {
        let pretrained = try model(name).load()
        let architecture = pretrained.model.architecture
        var decoder = architecture.decoder
        for layer in decoder.layers.indices { decoder.layers[layer].residualScale = 0.5 }
        let scaled = ModelArchitecture(
            modelType: architecture.modelType, tree: architecture.tree, keys: architecture.keys, decoder: decoder,
            head: architecture.head, vocabularySize: architecture.vocabularySize)
        // Halving what every sublayer's last product gives comes to the same.
        var weights = pretrained.weights
        for (path, linear) in weights.linears where path.hasSuffix("o_proj") || path.hasSuffix("down_proj") {
            weights.linears[path] = try linear.halved()
        }
        weights.experts = try weights.experts.mapValues { try $0.map { Expert(gateUp: $0.gateUp, down: try $0.down.halved()) } }
        func logits(_ architecture: ModelArchitecture, _ weights: ModelWeights) throws -> [Float] {
            let model = try LanguageModel(architecture, weights, options: SessionOptions(loadDType: .float32))
            let session = try model.makeSession(SessionRequest(rows: 1, capacity: 16))
            return try session.feed([RowTokens(row: 0, tokens: [3, 9, 4, 7, 5])], logits: .all) { Array($0.values) }
        }
        let (found, wanted) = (try logits(scaled, pretrained.weights), try logits(architecture, weights))
        #expect(found.allSatisfy(\.isFinite) && zip(found, wanted).allSatisfy { abs($0 - $1) < 1e-5 })
        let unscaled = try logits(architecture, pretrained.weights)
        #expect(zip(unscaled, wanted).contains { abs($0 - $1) > 1e-3 })
    }
}

extension Linear {
    /// The same layer with half the weight.
    fileprivate func halved() throws -> Linear {
        guard case .dense(let tensor) = try weight.canonical(), tensor.dtype == .float32 else {
            throw ModelError.missingWeight("float32 weight", module: name)
        }
        let values = tensor.hostElements(Float.self).map { $0 / 2 }
        return Linear(name: name, weight: .dense(.host(values, .float32, tensor.shape)), bias: bias, arithmetic: arithmetic)
    }
}
