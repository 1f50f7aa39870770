import Foundation
import Nibble
import NibbleCheckpoint
import NibbleCore
import NibbleLoading
import NibbleTestSupport
import Testing

/// Models whose weights another quantizer than bitsandbytes stored, against the same models in floats.
@Suite struct StoredFormatModelTests {
    private let stored: URL
    private let dense: URL
    private let original = FixtureModel("llama", in: Fixtures.repository.appending(path: "Tests/Fixtures"))
    private let ids: [[Int32]] = [[5, 9, 14, 20, 7, 11, 3]]

    init() throws {
        stored = try Fixtures.temporaryFolder()
        dense = try Fixtures.temporaryFolder()
    }

    /// Writes the model in a stored form, and in the floats that the form stands for.
    private func write(_ encoder: StoredEncoder) throws {
        let checkpoint = try CheckpointFiles.open(folder: original.folder)
        var (codes, floats): (StoredEncoder.Tensors, StoredEncoder.Tensors) = ([], [])
        for name in checkpoint.names {
            let tensor = try checkpoint.tensor(name)
            guard name.contains("_proj.weight") else {
                codes.append((name, tensor))
                floats.append((name, tensor))
                continue
            }
            let module = String(name.dropLast(".weight".count))
            let values = Array(tensor.hostElements(Float.self))
            let (tensors, dense) = encoder.encode(module, values, tensor.shape[0], tensor.shape[1])
            codes += tensors
            floats.append((name, .host(dense, .float32, tensor.shape)))
        }
        try SafetensorsWriter().write(codes, to: stored.appending(path: "model.safetensors"))
        try SafetensorsWriter().write(floats, to: dense.appending(path: "model.safetensors"))
        var config = try #require(JSONValue(contentsOf: original.folder.appending(path: "config.json")).object)
        try write(config, to: dense)
        if encoder.isInOwnFile {
            let own: JSONObject = ["producer": ["name": "modelopt"], "quantization": encoder.config]
            try Files.write(Data(JSONValue.object(own).encoded().utf8), to: stored.appending(path: "hf_quant_config.json"))
        } else {
            config["quantization_config"] = encoder.config
        }
        try write(config, to: stored)
    }

    private func write(_ config: JSONObject, to folder: URL) throws {
        try Files.write(Data(JSONValue.object(config).encoded().utf8), to: folder.appending(path: "config.json"))
    }

    private func logits(_ folder: URL, _ configuration: LoadConfiguration) throws -> [Float] {
        let output = try PretrainedModel.load(folder: folder, configuration).forward(inputIDs: ids)
        return Array(output.logits.hostElements(Float.self))
    }

    private func configuration(_ dtype: DType?, _ quantization: BitsAndBytesConfig? = nil) -> LoadConfiguration {
        var configuration = LoadConfiguration()
        configuration.dtype = dtype
        configuration.quantization = quantization
        return configuration
    }

    @Test("logits are those of the floats", arguments: StoredEncoder.all)
    func floats(encoder: StoredEncoder) throws {
        try write(encoder)
        for dtype in [DType.float32, .bfloat16, .float16] {
            #expect(try logits(stored, configuration(dtype)) == logits(dense, configuration(dtype)), "\(dtype)")
        }
        let original = try logits(self.original.folder, configuration(.float32))
        let ours = try logits(stored, configuration(.float32))
        // Four bits leave something of a tiny model's logits.
        func length(_ values: [Float]) -> Float { values.reduce(0) { $0 + $1 * $1 }.squareRoot() }
        #expect(length(zip(ours, original).map { $0 - $1 }) < length(original) && ours != original)
    }

    @Test("requantized weights are those of the floats", arguments: StoredEncoder.all)
    func requantized(encoder: StoredEncoder) throws {
        try write(encoder)
        for config in [
            BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4, useDoubleQuant: true), BitsAndBytesConfig(loadIn8Bit: true),
        ] {
            #expect(try logits(stored, configuration(nil, config)) == logits(dense, configuration(nil, config)))
        }
        let nf4 = configuration(.bfloat16, BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4))
        let report = try PretrainedModel.load(folder: stored, nf4).report
        let name = try #require(try ModelSource(folder: stored).storedFormat?.name)
        #expect(report.warnings == ["weights are requantized from \(name) to nf4"])
        #expect(report.unexpected.isEmpty)
        #expect(report.quantizedModules.count == 14)
        #expect(try LoadPreview(folder: stored, nf4).warnings == report.warnings)
        #expect(
            try LoadPreview(folder: stored, configuration(.bfloat16)).warnings
                == ["weights are dequantized from \(name) to bfloat16"])
    }

    @Test("dequantize and quantize write what they write of the floats", arguments: StoredEncoder.all)
    func written(encoder: StoredEncoder) throws {
        try write(encoder)
        let (fromStored, fromDense) = (stored.appending(path: "out"), dense.appending(path: "out"))
        let names = try CheckpointExport.dequantizedModel(stored, to: fromStored, configuration(.float32))
        #expect(names.count == 14)
        try expectEqualTensors(fromStored, dense)
        #expect(try JSONValue(contentsOf: fromStored.appending(path: "config.json"))["quantization_config"] == nil)
        let nf4 = configuration(.float32, BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4))
        let quantized = stored.appending(path: "nf4")
        try CheckpointExport.quantizedModel(stored, to: quantized, nf4)
        try CheckpointExport.quantizedModel(dense, to: fromDense, nf4)
        try expectEqualTensors(quantized, fromDense)
        #expect(!FileManager.default.fileExists(atPath: quantized.appending(path: "hf_quant_config.json").path))
    }

    private func expectEqualTensors(_ a: URL, _ b: URL) throws {
        let (first, second) = (try CheckpointFiles.open(folder: a), try CheckpointFiles.open(folder: b))
        #expect(first.names == second.names)
        for name in first.names {
            let (one, other) = (try first.tensor(name), try second.tensor(name))
            #expect(one.dtype == other.dtype && one.hostBytes.elementsEqual(other.hostBytes), "\(name)")
        }
    }

    @Test(
        "methods that are not read are refused by name",
        arguments: [
            "hqq", "torchao", "quanto", "aqlm", "vptq", "eetq", "higgs", "spqr", "quark", "bitnet", "fp_quant", "auto-round",
            "mxfp8", "sinq", "unheard-of",
        ])
    func refused(method: String) throws {
        var config = try #require(JSONValue(contentsOf: original.folder.appending(path: "config.json")).object)
        config["quantization_config"] = ["quant_method": .string(method)]
        try write(config, to: stored)
        let error = #expect(throws: QuantizationConfigError.self) { try LoadPreview(folder: stored, configuration(nil)) }
        #expect(error == .unknownMethod(method))
        #expect(error?.description.contains("\"\(method)\"") == true && error?.description.contains("16-bit model") == true)
    }
}
