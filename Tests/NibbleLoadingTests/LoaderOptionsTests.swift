import NibbleCore
import NibbleDeviceMap
import NibbleLoading
import NibbleQuantization
import Testing

/// What the loader makes of its options and of the checkpoint's own quantization.
@Suite struct LoaderOptionsTests {
    private static let fourBit = BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4)

    private func config(_ stored: JSONObject?) -> JSONObject {
        stored.map { TinyConfig.llama.setting("quantization_config", .object($0)) } ?? TinyConfig.llama
    }

    @Test("a config that asks for neither 4 nor 8 bits is not quantized, and may be quantized by the user")
    func neither() throws {
        let stored: JSONObject = ["quant_method": "bitsandbytes", "load_in_4bit": false, "load_in_8bit": false]
        let model = try TinyModel(config(stored))
        #expect(try model.plan().config == nil)
        #expect(try model.load().report.quantizedModules.isEmpty)
        var options = LoaderOptions()
        options.quantization = Self.fourBit
        let plan = try model.plan(options)
        #expect(plan.config == Self.fourBit)
        #expect(plan.warnings.isEmpty)
    }

    @Test("the checkpoint's own quantization takes precedence, with a warning") func stored() throws {
        let model = try TinyModel(config(BitsAndBytesConfig(loadIn8Bit: true).json))
        var options = LoaderOptions()
        options.quantization = Self.fourBit
        let plan = try model.plan(options)
        #expect(plan.config?.loadIn8Bit == true)
        #expect(plan.warnings.contains { $0.contains("already quantized") })
    }

    @Test("compute dtype and threshold of the user's take precedence, except in compatibility mode", arguments: [false, true])
    func overrides(compatibility: Bool) throws {
        let model = try TinyModel(config(BitsAndBytesConfig(loadIn4Bit: true, computeDType: .float16).json))
        var options = LoaderOptions()
        options.computeDType = .bfloat16
        options.int8Threshold = 2
        options.followsReference = compatibility
        let config = try #require(try model.plan(options).config)
        #expect(config.computeDType == (compatibility ? .float16 : .bfloat16))
        #expect(config.int8Threshold == (compatibility ? BitsAndBytesConfig.defaultThreshold : 2))
    }

    @Test(
        "a skip entry that matches no module is a warning",
        arguments: [
            (["up_proj", "nothing"], ["nothing"]), (["model.layers.0"], []), (["layers.1.mlp.down_proj"], []),
            (["proj"], ["proj"]),
            (["model.layers.9"], ["model.layers.9"]), (["caf\u{E9}"], ["caf\u{E9}"]),
        ] as [([String], [String])])
    func skips(entries: [String], unmatched: [String]) throws {
        let model = try TinyModel(TinyConfig.llama)
        for isAdded in [false, true] {
            var options = LoaderOptions()
            options.quantization = Self.fourBit
            if isAdded { options.addedSkipModules = entries } else { options.quantization?.int8SkipModules = entries }
            let expected = unmatched.map { "the skip entry \"\($0)\" matches no module of the model" }
            #expect(try model.plan(options).warnings == expected)
            #expect(try model.load(options).report.warnings == expected)
        }
    }

    @Test("an unknown quantization option is a warning that names it") func unknownOption() throws {
        let stored = BitsAndBytesConfig(loadIn8Bit: true).json.setting("surprise", 1)
        #expect(try TinyModel(config(stored)).plan().warnings.contains { $0.contains("surprise") })
    }

    @Test("conflicting and unknown values are refused before weights are read") func refusals() throws {
        let model = try TinyModel(TinyConfig.llama)
        var options = LoaderOptions()
        options.quantization = BitsAndBytesConfig(loadIn8Bit: true, loadIn4Bit: true)
        #expect(throws: QuantizationConfigError.bothLoads) { try model.plan(options) }
        options.quantization = BitsAndBytesConfig()
        #expect(throws: QuantizationConfigError.neitherLoad) { try model.plan(options) }
        options.quantization = nil
        options.dtype = .int8
        #expect(throws: LoadError.unknownDType("int8")) { try model.plan(options) }
        options.dtype = nil
        try model.write(TinyConfig.llama.setting("torch_dtype", "float3"))
        #expect(throws: LoadError.unknownDType("float3")) { try model.plan(options) }
    }
}
