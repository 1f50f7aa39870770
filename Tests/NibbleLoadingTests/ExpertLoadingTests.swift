import NibbleCore
import NibbleLoading
import NibbleModels
import NibbleQuantization
import Testing

/// Mixtures whose experts are stored in one tensor, or one by one.
@Suite struct ExpertLoadingTests {
    private static let module = "model.layers.0.mlp.experts"

    private func experts(_ config: JSONObject, quantization: BitsAndBytesConfig?, isSplit: Bool) throws -> [[[UInt8]]] {
        let model = try TinyModel(config) { tensors, _ in if isSplit { TinyModel.splitExperts(&tensors) } }
        var options = LoaderOptions()
        options.quantization = quantization
        options.preparesWeights = false
        let loaded = try model.load(options)
        #expect(loaded.report.unexpected.isEmpty)
        return try #require(loaded.weights.experts[ExpertLoadingTests.module]).map { expert in
            var bytes = [UInt8]()
            for layer in expert.gateUp.layers + [expert.down] {
                _ = layer.weight.mapTensors { tensor in
                    bytes += tensor.bytes
                    return tensor
                }
            }
            return [bytes]
        }
    }

    @Test("both forms hold the same values") func forms() throws {
        let fused = try experts(TinyConfig.mixtral, quantization: nil, isSplit: false)
        let split = try experts(TinyConfig.mixtral, quantization: nil, isSplit: true)
        #expect(fused.count == 3)
        #expect(fused == split)
        #expect(fused[0] != fused[1])
    }

    @Test(
        "experts are quantized one by one",
        arguments: [BitsAndBytesConfig(loadIn8Bit: true), BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4)])
    func quantized(config: BitsAndBytesConfig) throws {
        let split = try experts(TinyConfig.mixtral, quantization: config, isSplit: true)
        #expect(split.count == 3)
        #expect(split.allSatisfy { $0[0].count < 3 * 48 * 32 * 4 })
        // Rows of an expert are whole blocks, so that the fused gate and up hold the codes of both.
        if config.loadIn8Bit {
            let fused = try experts(TinyConfig.mixtral, quantization: config, isSplit: false)
            #expect(fused.map { $0[0].count } == split.map { $0[0].count })
        }
    }

    @Test("an expert that is missing is named") func missing() throws {
        let name = "\(ExpertLoadingTests.module).1.up_proj.weight"
        let model = try TinyModel(TinyConfig.mixtral) { tensors, _ in
            TinyModel.splitExperts(&tensors)
            tensors.removeAll { $0.name.contains("layers.0.") && $0.name.hasSuffix(".experts.1.w3.weight") }
        }
        let files = try model.checkpoint.files.map(\.path)
        #expect(throws: LoadError.missingWeights([name], files: files)) { try model.load() }
    }

    @Test("an expert of another shape is named with both shapes") func mismatched() throws {
        let name = ".experts.2.w2.weight"
        let model = try TinyModel(TinyConfig.mixtral) { tensors, _ in
            TinyModel.splitExperts(&tensors)
            let index = try #require(tensors.firstIndex { $0.name.hasSuffix(name) })
            tensors[index].tensor = TinyModel.values([32, 47], seed: 0)
        }
        #expect {
            try model.load()
        } throws: { error in
            let text = "\(error)"
            return text.contains(name) && text.contains("[32, 47]") && text.contains("[32, 48]")
        }
    }
}
