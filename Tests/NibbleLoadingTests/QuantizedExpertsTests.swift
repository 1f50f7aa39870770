import Foundation
import NibbleCPU
import NibbleCheckpoint
import NibbleCore
import NibbleLoading
import NibbleModels
import NibbleQuantization
import NibbleTestSupport
import Testing

/// Checkpoints whose experts are quantized: one by one, or in one tensor a parameter.
@Suite(.computing) struct QuantizedExpertsTests {
    private static let module = "model.layers.0.mlp.experts"
    private static let fileModule = "model.layers.0.block_sparse_moe.experts"

    enum Format: String, CaseIterable, Sendable {
        case fp4, nf4, nested, int8

        var config: BitsAndBytesConfig {
            switch self {
            case .fp4: BitsAndBytesConfig(loadIn4Bit: true, computeDType: .float32)
            case .nf4: BitsAndBytesConfig(loadIn4Bit: true, computeDType: .float32, quantType: .nf4)
            case .nested: BitsAndBytesConfig(loadIn4Bit: true, computeDType: .float32, quantType: .nf4, useDoubleQuant: true)
            case .int8: BitsAndBytesConfig(loadIn8Bit: true)
            }
        }
    }

    // MARK: Models

    private static func isExpert(_ name: String) -> Bool { name.contains(".experts.") }

    private static func quantized(_ name: String, _ tensor: Tensor, _ format: Format) throws -> [TinyModel.NamedTensor] {
        let shape = tensor.shape
        let flat = tensor.viewed(as: [shape.count / shape[shape.rank - 1], shape[shape.rank - 1]])
        switch try CPUBackend(threads: 1).quantize(flat, to: format.config.format) {
        case .fourBit(let weight): return try QuantizedTensors.fourBit(weight, name: name, shape: shape)
        case .int8(let weight):
            let stem = name.hasSuffix(".weight") ? String(name.dropLast(".weight".count)) : name
            return [(name, weight.values.viewed(as: shape)), (stem + ".SCB", weight.scales)]
        case .dense, .prepared: throw LoadError.unknownDType("not quantized")
        }
    }

    /// A Mixtral with quantized experts and otherwise float weights.
    private func model(
        _ format: Format, _ config: JSONObject = TinyConfig.mixtral, isSplit: Bool, quantizesRouters: Bool = false,
        skips: [String]? = nil,
        _ change: (inout [TinyModel.NamedTensor]) throws -> Void = { _ in }
    ) throws -> TinyModel {
        let model = try TinyModel(config) { tensors, _ in
            if isSplit { TinyModel.splitExperts(&tensors) }
            tensors = try tensors.flatMap { name, tensor -> [TinyModel.NamedTensor] in
                let isChosen =
                    QuantizedExpertsTests.isExpert(name) || (quantizesRouters && name.hasSuffix("block_sparse_moe.gate.weight"))
                return isChosen ? try QuantizedExpertsTests.quantized(name, tensor, format) : [(name, tensor)]
            }
            try change(&tensors)
        }
        var quantization = format.config
        quantization.int8SkipModules = (skips ?? []) + ["lm_head", "self_attn"]
        try model.write(config.setting("quantization_config", .object(quantization.json)))
        return model
    }

    private func load(_ model: TinyModel, reference: Bool = false) throws -> ModelLoader.LoadedModel {
        var options = LoaderOptions()
        options.dtype = .float32
        options.preparesWeights = false
        options.followsReference = reference
        return try model.load(options)
    }

    /// [expert][gate and up, down]
    private func floats(_ loaded: ModelLoader.LoadedModel) throws -> [[[Float]]] {
        let cpu = CPUBackend(threads: 1)
        return try #require(loaded.weights.experts[Self.module]).map { expert in
            [
                try expert.gateUp.layers.flatMap { try cpu.dequantize($0.weight, to: .float32).floats },
                try cpu.dequantize(expert.down.weight, to: .float32).floats,
            ]
        }
    }

    // MARK: What is read

    @Test("both forms hold the values of a quantized whole", arguments: Format.allCases, [false, true])
    func forms(format: Format, isSplit: Bool) throws {
        let loaded = try load(model(format, isSplit: isSplit), reference: true)
        #expect(loaded.report.unexpected.isEmpty)
        #expect(loaded.report.quantizedModules.filter { $0.contains("experts") }.count == (isSplit ? 18 : 2))
        let found = try floats(loaded)
        let plain = try floats(TinyModel(TinyConfig.mixtral).load(LoaderOptions()))
        #expect(found.count == 3)
        // Codes of expert i stand for the numbers of expert i: nothing is shifted by a row, a block or an expert.
        for (ours, theirs) in zip(found.joined(), plain.joined()) {
            let largest = theirs.reduce(0) { max($0, abs($1)) }
            #expect(zip(ours, theirs).allSatisfy { abs($0 - $1) <= largest * 0.2 })
            #expect(ours != theirs && ours.count == theirs.count)
        }
    }

    @Test(
        "experts cut out of one 4-bit tensor have the values of the whole", arguments: [Format.fp4, .nf4, .nested],
        [(32, 48), (128, 128), (128, 192)])
    func slices(format: Format, size: (width: Int, inner: Int)) throws {
        let config = TinyConfig.mixtral.setting("hidden_size", .int(size.width)).setting("intermediate_size", .int(size.inner))
        let loaded = try load(model(format, config, isSplit: false))
        let cpu = CPUBackend(threads: 1)
        let whole = try #require(
            TinyModel.tensors(TinyModel(config).architecture).first { $0.name == Self.fileModule + ".down_proj" })
        let flat = whole.tensor.viewed(as: [3 * size.width, size.inner])
        let expected = try cpu.dequantize(cpu.quantize(flat, to: format.config.format), to: .float32).floats
        #expect(try floats(loaded).flatMap { $0[1] } == expected)
        // Second-level scales stay where each expert has its own: one for 256 blocks of 64.
        let hasOwn = size.width * size.inner % (256 * 64) == 0
        let formats = Set(try #require(loaded.weights.experts[Self.module]).map(\.down.weight.format))
        #expect(formats == [.fourBit(.init(codebook: format.config.quantType, isNested: format == .nested && hasOwn))])
    }

    @Test("a quantized router is read, and counts as quantized", arguments: Format.allCases) func routers(format: Format) throws {
        let quantizing = try model(format, isSplit: true, quantizesRouters: true)
        let (with, without) = try (load(quantizing), load(model(format, isSplit: true)))
        #expect(with.report.unexpected.isEmpty)
        let name = "model.layers.0.block_sparse_moe.gate"
        #expect(with.report.quantizedModules.contains(name))
        #expect(without.report.skippedModules.contains(name))
        // Two layers of three experts of width 32.
        let bytes = 2 * 3 * 32
        #expect(without.report.footprint - with.report.footprint == (format == .int8 ? 3 * bytes : bytes * 7 / 2))
        #expect(try quantizing.plan().footprint == with.report.footprint)
    }

    @Test("without weight files, the library that wrote the checkpoint tells what is quantized", arguments: ["4.57.1", "5.3.0"])
    func plannedFromConfig(version: String) throws {
        let model = try model(.nf4, isSplit: true, quantizesRouters: version.hasPrefix("4"))
        let expected = try load(model).report.footprint
        let text = try JSONValue(contentsOf: model.folder.appending(path: "config.json")).object
        try model.write(try #require(text).setting("transformers_version", .string(version)))
        try FileManager.default.removeItem(at: model.folder.appending(path: "model.safetensors"))
        #expect(try model.plan().footprint == expected)
        var reference = LoaderOptions()
        reference.followsReference = true
        // Under transformers 5 the experts are floats: 2 · 3 · 3 · 32 · 48 weights of 4 bytes instead of a half.
        let floats = version.hasPrefix("5") ? 2 * 3 * 3 * 32 * 48 * 7 / 2 : 0
        #expect(try model.plan(reference).footprint == expected + floats)
    }

    @Test("experts that a skip entry names may be floats beside quantized ones", arguments: [false, true])
    func skippedExpert(namesFile: Bool) throws {
        let skip = namesFile ? "\(Self.fileModule).1.w2" : "\(Self.module).1.down_proj"
        let model = try model(.nf4, isSplit: true, skips: [skip]) { tensors in
            tensors.removeAll { $0.name.hasPrefix("\(QuantizedExpertsTests.fileModule).1.w2.") }
            tensors.append(("\(QuantizedExpertsTests.fileModule).1.w2.weight", TinyModel.values([32, 48], seed: 5)))
        }
        let loaded = try load(model)
        #expect(loaded.report.skippedModules.contains("\(Self.fileModule).1.w2"))
        let expert = try #require(loaded.weights.experts[Self.module])[1]
        #expect(expert.down.weight.format == .dense(.float32))
        #expect(try floats(loaded)[1][1] == TinyModel.values([32, 48], seed: 5).floats)
        // 32 · 48 weights of 4 bytes in place of half a byte.
        let whole = try load(self.model(.nf4, isSplit: true))
        let added = 32 * 48 * 7 / 2
        #expect(loaded.report.footprint == whole.report.footprint + added)
        #expect(try model.plan().footprint == loaded.report.footprint)
        let placement = try #require(loaded.report.placement).devices.first { $0.device == .cpu }
        #expect(
            placement?.weights == (try #require(whole.report.placement).devices.first { $0.device == .cpu }?.weights ?? 0) + added
        )
    }

    @Test("names below the experts that the model does not have are unexpected")
    func strays() throws {
        let strays = [
            "3.w1.weight", "0.w4.weight", "0.w1.bias", "00.w1.weight", "0.w1.weight.extra.absmax", "5.w2.SCB", "router.weight",
        ]
        let model = try model(.int8, isSplit: true) { tensors in
            for name in strays { tensors.append(("\(QuantizedExpertsTests.fileModule).\(name)", TinyModel.values([2], seed: 0))) }
        }
        let expected = strays.filter { !$0.contains("extra") }.map { "\(Self.fileModule).\($0)" }.sorted()
        #expect(try model.matching.unexpected.sorted() == expected)
    }

    // MARK: What is refused

    struct Damage: Sendable, CustomStringConvertible {
        var description: String
        var format = Format.nf4
        var isSplit = true
        /// The end of a tensor's name: what is replaced, or removed.
        var tensor: String
        var replacement: (@Sendable (Tensor) throws -> [TinyModel.NamedTensor])?
        /// Words of the error, which also names the file.
        var expected: [String]
    }

    private static let up = "\(fileModule).1.w3.weight"

    private static let damages: [Damage] = [
        Damage(description: "an expert missing", tensor: up, expected: ["missing", "\(module).1.up_proj.weight"]),
        Damage(
            description: "an expert's codes alone missing", tensor: up + "$", expected: ["missing", "\(module).1.up_proj.weight"]),
        Damage(
            description: "int8 beside nf4", tensor: up, replacement: { _ in try requantized(.int8) },
            expected: [up, "nf4 codes", "int8 codes"]),
        Damage(
            description: "fp4 beside nf4", tensor: up, replacement: { _ in try requantized(.fp4) },
            expected: [up, "nf4 codes", "fp4 codes"]),
        Damage(
            description: "nf4 beside int8", format: .int8, tensor: "\(fileModule).1.w3",
            replacement: { _ in try requantized(.nf4) },
            expected: [up, "int8 codes", "nf4 codes"]),
        Damage(
            description: "floats beside nf4", tensor: up, replacement: { _ in [(up, TinyModel.values([48, 32], seed: 0))] },
            expected: [up, "nf4 codes", "float32 without scales"]),
        Damage(
            description: "floats beside int8", format: .int8, tensor: "\(fileModule).1.w3",
            replacement: { _ in [(up, TinyModel.values([48, 32], seed: 0))] },
            expected: [up, "int8 codes", "float32 without scales"]),
        Damage(
            description: "codes without anything", tensor: up,
            replacement: { _ in [(up, .host([UInt8](repeating: 0, count: 768), .uint8, [768, 1]))] },
            expected: [up, "nf4 codes", "uint8 without scales"]),
        Damage(
            description: "a short absmax", tensor: up + ".absmax$",
            replacement: { _ in [(up + ".absmax", TinyModel.values([23], seed: 0))] },
            expected: [up + ".absmax", "24 scales of type float32", "float32 [23]"]),
        Damage(
            description: "an absmax of another dtype", tensor: up + ".absmax$",
            replacement: { _ in [(up + ".absmax", .host(.float16, [24]))] },
            expected: [up + ".absmax", "24 scales of type float32", "float16 [24]"]),
        Damage(
            description: "no absmax", tensor: up + ".absmax$", expected: [up, "absmax is missing"]),
        Damage(
            description: "no second-level scales", format: .nested, tensor: up + ".nested_absmax$",
            expected: [up, "nested_absmax is missing"]),
        Damage(
            description: "a short SCB", format: .int8, tensor: "\(fileModule).1.w3.SCB$",
            replacement: { _ in [("\(fileModule).1.w3.SCB", TinyModel.values([47], seed: 0))] },
            expected: ["\(fileModule).1.w3.SCB", "48 float32 row scales", "float32 [47]"]),
        Damage(
            description: "a state that names another shape", tensor: up + ".quant_state.bitsandbytes__nf4$",
            replacement: { _ in [state([32, 48])] }, expected: [up + ".quant_state", "shape [48, 32]", "[32, 48]"]),
        Damage(
            description: "a state that is no JSON", tensor: up + ".quant_state.bitsandbytes__nf4$",
            replacement: { _ in [(up + ".quant_state.bitsandbytes__nf4", .host([UInt8]("{".utf8), .uint8, [1]))] },
            expected: [up + ".quant_state", "JSON text"]),
        Damage(
            description: "no state", tensor: up + ".quant_state.bitsandbytes__nf4$",
            expected: [up, "nf4 codes", "4-bit codes without quant_state"]),
        Damage(
            description: "int8 codes of another shape", format: .int8, tensor: up + "$",
            replacement: { _ in [(up, .host([Int8](repeating: 1, count: 48 * 31), .int8, [48, 31]))] },
            expected: [up, "int8 [48, 32]", "int8 [48, 31]"]),
        Damage(
            description: "a whole set: short absmax", isSplit: false, tensor: "\(fileModule).down_proj.absmax$",
            replacement: { _ in [("\(fileModule).down_proj.absmax", TinyModel.values([71], seed: 0))] },
            expected: ["\(fileModule).down_proj.absmax", "72 scales of type float32", "float32 [71]"]),
        Damage(
            description: "a whole set: no codes", isSplit: false, tensor: "\(fileModule).down_proj$",
            expected: ["missing", "\(module).down_proj"]),
        Damage(
            description: "a whole set: a state of one expert", isSplit: false,
            tensor: "\(fileModule).down_proj.quant_state.bitsandbytes__nf4$",
            replacement: { _ in [state([32, 48], "\(fileModule).down_proj")] },
            expected: ["\(fileModule).down_proj.quant_state", "shape [3, 32, 48]", "[32, 48]"]),
        Damage(
            description: "a whole set in int8: short SCB", format: .int8, isSplit: false,
            tensor: "\(fileModule).gate_up_proj.SCB$",
            replacement: { _ in [("\(fileModule).gate_up_proj.SCB", TinyModel.values([96], seed: 0))] },
            expected: ["\(fileModule).gate_up_proj.SCB", "288 float32 row scales", "float32 [96]"]),
    ]

    private static func requantized(_ format: Format) throws -> [TinyModel.NamedTensor] {
        try quantized(up, TinyModel.values([48, 32], seed: 9), format)
    }

    private static func state(_ shape: Shape, _ name: String = up) -> TinyModel.NamedTensor {
        let text = QuantState(codebook: .nf4, blockSize: 64, dtype: .float32, shape: shape).encoded
        return (name + ".quant_state.bitsandbytes__nf4", .host(text, .uint8, [text.count]))
    }

    @Test("each malformation is an error that names file and tensor, what was expected and what was found", arguments: damages)
    func malformed(damage: Damage) throws {
        let model = try model(damage.format, isSplit: damage.isSplit) { tensors in
            let isExact = damage.tensor.hasSuffix("$")
            let name = isExact ? String(damage.tensor.dropLast()) : damage.tensor
            let index = try #require(tensors.firstIndex { $0.name == name || (!isExact && $0.name.hasPrefix(name)) })
            let old = tensors[index].tensor
            tensors.removeAll { $0.name == name || (!isExact && $0.name.hasPrefix(name)) }
            if let replacement = damage.replacement { tensors += try replacement(old) }
        }
        let error = #expect(throws: LoadError.self) { _ = try load(model) }
        let text = "\(try #require(error))"
        for word in damage.expected + ["model.safetensors"] { #expect(text.contains(word), "\(text)") }
        #expect(!text.contains("tensor model") || text.contains("expected"), "\(text)")
    }

    @Test("experts that share a block of scales cannot be told apart") func sharedBlocks() throws {
        // 3 · 24 · 16 weights in blocks of 256: an expert has one and a half.
        let config = TinyConfig.mixtral.setting("hidden_size", 16).setting("intermediate_size", 24).setting(
            "num_attention_heads", 2)
        var quantization = Format.nf4.config
        quantization.blockSize = 256
        let format = quantization.format
        let model = try TinyModel(config) { tensors, _ in
            tensors = try tensors.flatMap { name, tensor -> [TinyModel.NamedTensor] in
                guard name.hasSuffix("experts.down_proj") else { return [(name, tensor)] }
                let flat = tensor.viewed(as: [3 * 16, 24])
                guard case .fourBit(let weight) = try CPUBackend(threads: 1).quantize(flat, to: format) else { return [] }
                return try QuantizedTensors.fourBit(weight, name: name, shape: tensor.shape)
            }
        }
        try model.write(config.setting("quantization_config", .object(quantization.json)))
        let error = try #require(#expect(throws: LoadError.self) { _ = try load(model) })
        #expect("\(error)".contains("whole blocks") && "\(error)".contains("384 weights an expert"))
    }
}
