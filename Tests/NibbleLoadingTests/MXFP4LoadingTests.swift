import Foundation
import NibbleCPU
import NibbleCheckpoint
import NibbleCore
import NibbleLoading
import NibbleModels
import NibbleQuantization
import Testing

/// Experts in MXFP4 blocks, against the same experts in floats.
@Suite struct MXFP4LoadingTests {
    private static let config: JSONObject = [
        "model_type": "gpt_oss", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 64, "num_local_experts": 3, "num_experts_per_tok": 2,
        "max_position_embeddings": 64, "tie_word_embeddings": false, "dtype": "bfloat16",
    ]
    private let stored: TinyModel
    private let dense: TinyModel

    init() throws {
        dense = try TinyModel(Self.config) { tensors, _ in
            for index in tensors.indices { tensors[index].tensor = Self.blocks(tensors[index])?.dense ?? tensors[index].tensor }
        }
        stored = try TinyModel(Self.config.setting("quantization_config", ["quant_method": "mxfp4"])) { tensors, _ in
            tensors = tensors.flatMap { entry -> [TinyModel.NamedTensor] in
                guard let made = Self.blocks(entry) else { return [entry] }
                return [("\(entry.name)_blocks", made.blocks), ("\(entry.name)_scales", made.scales)]
            }
        }
    }

    /// Codes of a parameter of experts [E, K, N], and the floats they stand for.
    private static func blocks(_ entry: TinyModel.NamedTensor) -> (blocks: Tensor, scales: Tensor, dense: Tensor)? {
        guard entry.name.hasSuffix("experts.gate_up_proj") || entry.name.hasSuffix("experts.down_proj") else { return nil }
        let (experts, inner, outer) = (entry.tensor.shape[0], entry.tensor.shape[1], entry.tensor.shape[2])
        let count = experts * inner * outer
        func code(_ expert: Int, _ row: Int, _ column: Int) -> Int {
            (((expert * outer + row) * inner + column) * 7 + row / 3) % 16
        }
        func exponent(_ expert: Int, _ row: Int, _ block: Int) -> Int { 118 + (expert + 2 * row + block) % 6 }
        var bytes = [UInt8](repeating: 0, count: count / 2)
        var scales = [UInt8](repeating: 0, count: count / 32)
        var floats = [Float](repeating: 0, count: count)
        let values: [Float] = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
        for expert in 0..<experts {
            for row in 0..<outer {
                for column in 0..<inner {
                    let (element, code) = ((expert * outer + row) * inner + column, code(expert, row, column))
                    let power = exponent(expert, row, column / 32)
                    bytes[element / 2] |= UInt8(code) << (element % 2 == 0 ? 0 : 4)
                    scales[element / 32] = UInt8(power)
                    floats[(expert * inner + column) * outer + row] =
                        (code < 8 ? values[code] : -values[code - 8]) * pow(2, Float(power - 127))
                }
            }
        }
        return (
            .host(bytes, .uint8, [experts, outer, inner / 32, 16]), .host(scales, .uint8, [experts, outer, inner / 32]),
            .host(floats, .float32, entry.tensor.shape)
        )
    }

    private func load(_ model: TinyModel, _ options: LoaderOptions) throws -> ModelLoader.LoadedModel {
        let checkpoint = try ModelSource(folder: model.folder).checkpoint(variant: nil, dtype: options.dtype)
        return try model.loader(options).load(checkpoint, placement: TinyModel.onCPU)
    }

    private func layers(_ loaded: ModelLoader.LoadedModel) throws -> [Linear] {
        let experts = loaded.weights.experts.sorted { $0.key < $1.key }
        #expect(experts.count == 2 && experts.allSatisfy { $0.value.count == 3 })
        return experts.flatMap { $0.value.flatMap { $0.gateUp.layers + [$0.down] } }
    }

    @Test("without load options experts keep their codes and lose nothing", arguments: [false, true])
    func kept(prepares: Bool) throws {
        let cpu = CPUBackend(threads: 1)
        var options = LoaderOptions()
        options.preparesWeights = prepares
        let (ours, theirs) = (try load(stored, options), try load(dense, options))
        for (layer, float) in zip(try layers(ours), try layers(theirs)) {
            #expect(layer.weight.format == .fourBit(.mxfp4))
            let values = try cpu.dequantize(layer.weight, to: .float32)
            let expected = try cpu.dequantize(float.weight, to: .float32)
            #expect(values.floats == expected.floats, "\(layer.name)")
            #expect(layer.bias?.floats == float.bias?.floats)
        }
        #expect(ours.report.warnings == ["experts keep mxfp4, other weights are bfloat16"])
        let plan = try ModelLoader.plan(ModelSource(folder: stored.folder), options: options, TinyModel.onCPU)
        #expect(plan.warnings == ours.report.warnings)
        let held =
            try #require(ours.report.placement?.devices.first).weights + (ours.report.placement?.devices.first?.scales ?? 0)
        #expect(held == plan.placement.devices.first.map { $0.weights + $0.scales })
        #expect(held < theirs.report.placement?.devices.first?.weights ?? 0)
    }

    @Test("with load options experts are quantized again")
    func requantized() throws {
        var options = LoaderOptions()
        options.preparesWeights = false
        options.quantization = BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4, blockSize: 32)
        let (ours, theirs) = (try load(stored, options), try load(dense, options))
        for (layer, other) in zip(try layers(ours), try layers(theirs)) {
            guard case .fourBit(let one) = layer.weight, case .fourBit(let two) = other.weight else {
                Issue.record("\(layer.name) is not 4-bit")
                continue
            }
            #expect(one.format.codebook == .nf4 && one.codes.bytes == two.codes.bytes)
        }
        #expect(ours.report.warnings.contains { $0.hasPrefix("weights are requantized from mxfp4 to nf4") })
    }

    @Test("nothing is quantized to mxfp4")
    func refused() throws {
        var options = LoaderOptions()
        options.quantization = BitsAndBytesConfig(loadIn4Bit: true, quantType: .mxfp4)
        #expect(throws: QuantizationConfigError.self) { try load(dense, options) }
        #expect(throws: BackendError.self) {
            try CPUBackend(threads: 1).quantize(TinyModel.values([4, 32], seed: 1), to: .fourBit(.mxfp4))
        }
    }
}
