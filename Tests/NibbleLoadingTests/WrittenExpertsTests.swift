import Foundation
import NibbleCPU
import NibbleCheckpoint
import NibbleCore
import NibbleLoading
import NibbleQuantization
import NibbleTestSupport
import Testing

/// Experts in checkpoints that are written, quantized and back in floating point.
@Suite(.computing) struct WrittenExpertsTests {
    private static let nf4 = BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4)
    private static let nested = BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4, useDoubleQuant: true)
    private static let int8 = BitsAndBytesConfig(loadIn8Bit: true)
    private static let module = "model.layers.0.mlp.experts"
    private static let fileModule = "model.layers.0.block_sparse_moe.experts"

    private func options(_ config: BitsAndBytesConfig?, reference: Bool = false) -> LoaderOptions {
        var options = LoaderOptions()
        options.quantization = config
        options.dtype = .float32
        options.preparesWeights = false
        options.followsReference = reference
        return options
    }

    private func loader(_ folder: URL, _ options: LoaderOptions) throws -> ModelLoader {
        try ModelLoader(ModelSource(folder: folder), options: options, backends: [CPUBackend(threads: 1)])
    }

    private func load(_ folder: URL) throws -> ModelLoader.LoadedModel {
        try loader(folder, options(nil)).load(CheckpointFiles.open(folder: folder), placement: TinyModel.onCPU)
    }

    private func mixtral(isSplit: Bool) throws -> TinyModel {
        try TinyModel(TinyConfig.mixtral) { tensors, _ in if isSplit { TinyModel.splitExperts(&tensors) } }
    }

    private func withFolders(_ body: (URL, URL) throws -> Void) throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        try body(folder.appending(path: "first"), folder.appending(path: "second"))
    }

    private func write(_ model: TinyModel, _ options: LoaderOptions, to folder: URL) throws -> WrittenCheckpoint {
        try model.loader(options).writeQuantized(model.checkpoint, to: folder, maximumShardBytes: 1 << 30)
    }

    private func floats(_ loaded: ModelLoader.LoadedModel) throws -> [[Float]] {
        let cpu = CPUBackend(threads: 1)
        return try #require(loaded.weights.experts[Self.module]).flatMap { expert in
            [
                try expert.gateUp.layers.flatMap { try cpu.dequantize($0.weight, to: .float32).floats },
                try cpu.dequantize(expert.down.weight, to: .float32).floats,
            ]
        }
    }

    @Test("experts that are kept one by one are written as they are loaded", arguments: [nf4, nested, int8])
    func separate(config: BitsAndBytesConfig) throws {
        try withFolders { folder, again in
            let model = try mixtral(isSplit: true)
            let written = try write(model, options(config), to: folder)
            #expect(written.quantizedModules.contains(Self.module))
            #expect(written.warnings.contains { $0.contains("transformers 4") && $0.contains("--reference-behaviour") })

            let (direct, read) = try (model.load(options(config)), load(folder))
            #expect(read.report.unexpected.isEmpty)
            #expect(try floats(read) == floats(direct))
            #expect(read.report.footprint == direct.report.footprint)
            #expect(read.report.quantizedModules.contains("\(Self.fileModule).2.w3"))
            // transformers 4 leaves a router alone only if it is named.
            let skips = try #require(ModelSource(folder: folder).storedQuantization?.int8SkipModules)
            #expect(skips.contains("lm_head") && skips.contains("model.layers.1.block_sparse_moe.gate"))

            _ = try loader(folder, options(nil)).writeQuantized(
                CheckpointFiles.open(folder: folder), to: again, maximumShardBytes: 1 << 30)
            for name in ["model.safetensors", "config.json"] {
                #expect(try Files.data(of: folder.appending(path: name)) == Files.data(of: again.appending(path: name)))
            }
        }
    }

    @Test("fused experts are written in one 4-bit tensor a parameter", arguments: [nf4, nested])
    func fused(config: BitsAndBytesConfig) throws {
        try withFolders { folder, again in
            let model = try mixtral(isSplit: false)
            let written = try write(model, options(config), to: folder)
            #expect(written.quantizedModules.contains(Self.module))
            #expect(written.warnings.contains { $0.contains("replace_parameter_4bit") && $0.contains("--reference-behaviour") })
            let file = try CheckpointFiles.open(folder: folder)
            let name = Self.fileModule + ".gate_up_proj"
            #expect(file.descriptor(name)?.shape == [3 * 96 * 32 / 2, 1])
            let state = try QuantState(
                parsing: file.tensor(name + ".quant_state.bitsandbytes__nf4").hostBytes, name: name)
            #expect(state.shape == [3, 96, 32])

            let (direct, read) = try (model.load(options(config)), load(folder))
            #expect(read.report.unexpected.isEmpty && read.report.quantizedModules.contains(Self.module))
            #expect(read.report.footprint == direct.report.footprint)
            // An expert is whole blocks, so that only second-level scales are shared with others.
            if !config.useDoubleQuant { #expect(try floats(read) == floats(direct)) }

            _ = try loader(folder, options(nil)).writeQuantized(file, to: again, maximumShardBytes: 1 << 30)
            let weights = "model.safetensors"
            #expect(try Files.data(of: folder.appending(path: weights)) == Files.data(of: again.appending(path: weights)))
        }
    }

    @Test("what cannot be read back is left in floating point and named", arguments: [false, true])
    func left(followsReference: Bool) throws {
        try withFolders { folder, _ in
            let model = try mixtral(isSplit: followsReference)
            let written = try write(model, options(Self.int8, reference: followsReference), to: folder)
            #expect(written.quantizedModules.allSatisfy { !$0.contains("experts") })
            #expect(written.warnings.contains { $0.contains("mlp.experts: left in float32") })
            #expect(try ModelSource(folder: folder).storedQuantization?.int8SkipModules == nil)
            let file = try CheckpointFiles.open(folder: folder)
            let name = followsReference ? "\(Self.fileModule).1.w2.weight" : Self.fileModule + ".down_proj"
            #expect(file.descriptor(name)?.dtype == .float32)
            #expect(file.names.allSatisfy { !$0.contains("experts") || file.descriptor($0)?.dtype == .float32 })
        }
    }

    @Test(
        "a dequantized checkpoint holds the values of quantized experts",
        arguments: [(nf4, true), (nested, true), (int8, true), (nf4, false), (nested, false)])
    func dequantized(config: BitsAndBytesConfig, isSplit: Bool) throws {
        try withFolders { folder, plain in
            let model = try mixtral(isSplit: isSplit)
            _ = try write(model, options(config), to: folder)
            _ = try loader(folder, options(nil)).writeDequantized(
                CheckpointFiles.open(folder: folder), to: plain, maximumShardBytes: 1 << 30)
            let (quantized, back) = try (load(folder), load(plain))
            #expect(back.report.quantizedModules.isEmpty && back.report.unexpected.isEmpty)
            #expect(try floats(back) == floats(quantized))
            // Shapes and names are those of the checkpoint that was quantized.
            let (original, file) = try (model.checkpoint, CheckpointFiles.open(folder: plain))
            #expect(file.names.sorted() == original.names.sorted())
            for name in original.names { #expect(file.descriptor(name)?.shape == original.descriptor(name)?.shape, "\(name)") }
        }
    }

    @Test("an expert with a NaN is named, and no file is left") func nonFinite() throws {
        try withFolders { folder, _ in
            let name = "\(Self.fileModule).1.w1.weight"
            let model = try TinyModel(TinyConfig.mixtral) { tensors, _ in
                TinyModel.splitExperts(&tensors)
                let index = try #require(tensors.firstIndex { $0.name == name })
                var values = tensors[index].tensor.floats
                values[7] = .nan
                tensors[index].tensor = .host(values, .float32, [48, 32])
            }
            let error = try #require(#expect(throws: LoadError.self) { _ = try write(model, options(Self.nf4), to: folder) })
            #expect("\(error)".contains(name) && "\(error)".contains("element 7"))
            #expect(!FileManager.default.fileExists(atPath: folder.path))
        }
    }
}
