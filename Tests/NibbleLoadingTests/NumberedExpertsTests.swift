import Foundation
import NibbleCPU
import NibbleCheckpoint
import NibbleCore
import NibbleLoading
import NibbleModels
import NibbleQuantization
import NibbleTestSupport
import Testing

/// gpt-oss with lists of layers for experts, `experts.down_projs.3.weight`, against the fused parameters.
@Suite struct NumberedExpertsTests {
    private static let config: JSONObject = [
        "model_type": "gpt_oss", "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 64, "num_local_experts": 3, "num_experts_per_tok": 2,
        "max_position_embeddings": 64, "tie_word_embeddings": false, "dtype": "float32",
    ]
    private static let nf4: JSONObject = [
        "quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "float32",
        "llm_int8_skip_modules": ["lm_head", "router"],
    ]

    /// The tensors of one parameter in the other layout: experts one by one as [N, K], and another name for the router.
    private static func split(_ entry: TinyModel.NamedTensor) -> [TinyModel.NamedTensor] {
        let (name, tensor) = entry
        guard let range = name.range(of: ".experts.") else {
            return [(name.replacing(".mlp.router.", with: ".mlp.router.linear."), tensor)]
        }
        let (set, parameter) = (name[..<range.upperBound], String(name[range.upperBound...]))
        let isBias = parameter.hasSuffix("_bias")
        let projection = isBias ? String(parameter.dropLast("_bias".count)) : parameter
        let values = tensor.floats
        return (0..<tensor.shape[0]).map { expert in
            let path = "\(set)\(projection)s.\(expert)"
            let own = values[expert * values.count / tensor.shape[0]..<(expert + 1) * values.count / tensor.shape[0]]
            let start = own.startIndex
            guard !isBias else { return ("\(path).bias", .host(Array(own), .float32, [own.count])) }
            let (inner, outer) = (tensor.shape[1], tensor.shape[2])
            let rows = (0..<outer).flatMap { row in (0..<inner).map { own[start + $0 * outer + row] } }
            return ("\(path).weight", .host(rows, .float32, [outer, inner]))
        }
    }

    private static func model(_ quantization: JSONObject? = nil, _ format: WeightFormat? = nil) throws -> TinyModel {
        let cpu = CPUBackend(threads: 1)
        let config = quantization.map { Self.config.setting("quantization_config", .object($0)) } ?? Self.config
        return try TinyModel(config) { tensors, _ in
            tensors = try tensors.flatMap(split).flatMap { name, tensor -> [TinyModel.NamedTensor] in
                guard let format, name.contains("_proj"), name.hasSuffix(".weight") else { return [(name, tensor)] }
                switch try cpu.quantize(tensor, to: format) {
                case .fourBit(let weight): return try QuantizedTensors.fourBit(weight, name: name)
                case .int8(let weight):
                    return [
                        (name, weight.values),
                        (name.replacing(".weight", with: ".SCB"), weight.scales),
                    ]
                default: return []
                }
            }
        }
    }

    private func options(_ config: BitsAndBytesConfig? = nil) -> LoaderOptions {
        var options = LoaderOptions()
        options.preparesWeights = false
        options.quantization = config
        return options
    }

    /// Weights of attention and experts as floats, and biases, by name.
    private func floats(_ loaded: ModelLoader.LoadedModel) throws -> [String: [Float]] {
        let cpu = CPUBackend(threads: 1)
        var all: [String: [Float]] = [:]
        for (path, experts) in loaded.weights.experts {
            for (index, expert) in experts.enumerated() {
                for (position, layer) in (expert.gateUp.layers + [expert.down]).enumerated() {
                    let name = "\(path).\(index).\(position)"
                    all[name] = try cpu.dequantize(layer.weight, to: .float32).floats
                    all["\(name).bias"] = try #require(layer.bias).floats
                }
            }
        }
        for (path, linear) in loaded.weights.linears {
            all[path] = try cpu.dequantize(linear.weight, to: .float32).floats
            if let bias = linear.bias { all["\(path).bias"] = bias.floats }
        }
        return all
    }

    @Test("floats are those of the fused layout")
    func plain() throws {
        let (ours, theirs) = (try Self.model().load(options()), try TinyModel(Self.config).load(options()))
        let found = try floats(ours)
        #expect(try found == floats(theirs))
        #expect(found.keys.filter { $0.contains("experts") }.count == 2 * 3 * 4)
        #expect(found["model.layers.1.mlp.router"] != nil && found["model.layers.1.mlp.router.bias"] != nil)
        #expect(ours.report.unexpected.isEmpty)
    }

    @Test("floats are quantized as those of the fused layout")
    func quantizedAtLoad() throws {
        for config in [
            BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4, useDoubleQuant: true), BitsAndBytesConfig(loadIn8Bit: true),
        ] {
            let (ours, theirs) = (try Self.model().load(options(config)), try TinyModel(Self.config).load(options(config)))
            #expect(try floats(ours) == floats(theirs))
            #expect(ours.report.quantizedModules.contains { $0.contains("experts") })
        }
    }

    @Test("stored codes are what a load of the floats makes", arguments: [false, true])
    func prequantized(isNested: Bool) throws {
        let format = WeightFormat.fourBit(.init(codebook: .nf4, blockSize: 64, isNested: isNested))
        let ours = try Self.model(Self.nf4.setting("bnb_4bit_use_double_quant", .bool(isNested)), format).load(options())
        #expect(ours.report.unexpected.isEmpty)
        // The order of rows decides which scales are nested together. Single scales do not depend on it.
        let plain = BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4)
        let theirs = try TinyModel(Self.config).load(options(plain))
        let (found, expected) = (try floats(ours), try floats(theirs))
        #expect(found.keys.sorted() == expected.keys.sorted())
        for (name, values) in expected where name != "lm_head" {
            let own = try #require(found[name])
            guard isNested else {
                #expect(own == values, "\(name)")
                continue
            }
            let largest = values.map(abs).max() ?? 0
            #expect(zip(own, values).allSatisfy { abs($0 - $1) <= largest / 50 }, "\(name)")
        }
        let gate = try #require(ours.weights.experts["model.layers.1.mlp.experts"]?[2].gateUp.layers.first)
        #expect(gate.weight.format == .fourBit(.init(codebook: .nf4, blockSize: 64, isNested: false)))
    }

    @Test("stored int8 codes are what a load of the floats makes")
    func int8() throws {
        let config: JSONObject = [
            "quant_method": "bitsandbytes", "load_in_8bit": true, "llm_int8_skip_modules": ["lm_head", "router"],
        ]
        let ours = try Self.model(config, .int8).load(options())
        let theirs = try TinyModel(Self.config).load(options(BitsAndBytesConfig(loadIn8Bit: true)))
        #expect(try floats(ours) == floats(theirs))
    }

    @Test("rows that share scales are refused by name")
    func sharedScales() throws {
        let format = WeightFormat.fourBit(.init(codebook: .nf4, blockSize: 128))
        let error = #expect(throws: LoadError.self) { try Self.model(Self.nf4, format).load(options()) }
        #expect(error?.description.contains("model.layers.0.mlp.experts.gate_up_projs.0.weight") == true)
        #expect(error?.description.contains("whole blocks") == true)
    }

    @Test("a missing bias is named")
    func missingBias() throws {
        let model = try TinyModel(Self.config) { tensors, _ in
            tensors = tensors.flatMap(Self.split).filter { !$0.name.hasSuffix("experts.down_projs.1.bias") }
        }
        let error = #expect(throws: LoadError.self) { try model.load(options()) }
        #expect(error?.description.contains("experts.1.down_proj.bias") == true)
    }

    @Test("written checkpoints keep the layout and read back", arguments: [false, true])
    func written(isQuantized: Bool) throws {
        let output = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: output) }
        let folder = output.appending(path: "out")
        let nf4 = BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4)
        let model = try isQuantized ? Self.model(Self.nf4, .fourBit(.init(codebook: .nf4, blockSize: 64))) : Self.model()
        let (loader, checkpoint) = (try model.loader(options(isQuantized ? nil : nf4)), try model.checkpoint)
        if isQuantized {
            _ = try loader.writeDequantized(checkpoint, to: folder, maximumShardBytes: 1 << 30)
        } else {
            _ = try loader.writeQuantized(checkpoint, to: folder, maximumShardBytes: 1 << 30)
        }
        let names = try CheckpointFiles.open(folder: folder).names
        #expect(names.contains("model.layers.1.mlp.experts.gate_up_projs.2.bias"))
        #expect(names.contains("model.layers.1.mlp.router.linear.weight"))
        let source = try ModelSource(folder: folder)
        let again = try ModelLoader(source, options: options(), backends: [CPUBackend(threads: 1)])
            .load(CheckpointFiles.open(folder: folder), placement: TinyModel.onCPU)
        let first = try model.load(options(isQuantized ? nil : nf4))
        #expect(again.report.unexpected.isEmpty)
        #expect(try floats(again) == floats(first))
    }
}
