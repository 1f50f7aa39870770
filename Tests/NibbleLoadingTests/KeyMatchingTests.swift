import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleLoading
import NibbleModels
import NibbleQuantization
import Testing

/// Names of tensors and the parameters they stand for.
@Suite struct KeyMatchingTests {
    @Test(
        "every parameter of a complete checkpoint has its tensor",
        arguments: [TinyConfig.llama, TinyConfig.tiedLlama, TinyConfig.gpt2, TinyConfig.mixtral])
    func complete(config: JSONObject) throws {
        let matching = try TinyModel(config).matching
        #expect(matching.missing.isEmpty && matching.unexpected.isEmpty && matching.mismatched.isEmpty)
        #expect(matching.warnings.isEmpty)
        #expect(!matching.sources.isEmpty)
        #expect(matching.sources.values.allSatisfy { !$0.isQuantized })
    }

    @Test("tensors without the base prefix are found") func withoutPrefix() throws {
        let model = try TinyModel(TinyConfig.llama) { tensors, _ in
            for index in tensors.indices where tensors[index].name.hasPrefix("model.") {
                tensors[index].name.removeFirst("model.".count)
            }
        }
        let matching = try model.matching
        #expect(matching.missing.isEmpty && matching.unexpected.isEmpty)
        #expect(matching.sources["model.norm.weight"]?.key == "norm.weight")
    }

    @Test("missing, unexpected and mismatched tensors are told apart") func differences() throws {
        let model = try TinyModel(TinyConfig.llama) { tensors, _ in
            tensors.removeAll { $0.name == "model.norm.weight" }
            tensors.append(("model.layers.0.extra.weight", TinyModel.values([4], seed: 0)))
            let index = try #require(tensors.firstIndex { $0.name == "lm_head.weight" })
            tensors[index].tensor = TinyModel.values([64, 31], seed: 1)
        }
        let matching = try model.matching
        #expect(matching.missing == ["model.norm.weight"])
        #expect(matching.unexpected == ["model.layers.0.extra.weight"])
        #expect(matching.mismatched.map(\.name) == ["lm_head.weight"])
        #expect(matching.mismatched.first?.expected == [64, 32])
        #expect(matching.mismatched.first?.found == [64, 31])
        let files = try model.checkpoint.files.map(\.path)
        #expect(throws: LoadError.missingWeights(["model.norm.weight"], files: files)) { try model.load() }
    }

    @Test("names that look alike but differ in their code points are different tensors") func canonicallyEquivalent() throws {
        let path = "model.layers.0.mlp.up_proj.weight"
        let names = ["caf\u{E9}", "cafe\u{301}", path, path + ".caf\u{E9}", path + ".cafe\u{301}"]
        let matching = try KeyMatching(TinyModel(TinyConfig.llama).architecture, ListedCheckpoint(names: names))
        #expect(matching.unexpected == Array(names.prefix(2)))
        #expect(Set(texts: matching.unexpected).count == 2)
        #expect(matching.sources[path]?.companions.count == 2)
    }

    // MARK: Ties

    enum Head: CaseIterable, Sendable { case absent, equal, different }

    @Test("a tied head is tied unless the file contradicts it", arguments: Head.allCases) func ties(head: Head) throws {
        let model = try TinyModel(TinyConfig.tiedLlama) { tensors, _ in
            let table = try #require(tensors.first { $0.name == "model.embed_tokens.weight" }?.tensor)
            if head == .equal { tensors.append(("lm_head.weight", .host(table.floats, .float32, table.shape))) }
            if head == .different { tensors.append(("lm_head.weight", TinyModel.values(table.shape, seed: 99))) }
        }
        let matching = try model.matching
        #expect(matching.tied.count == (head == .different ? 0 : 1))
        #expect(matching.warnings.count == (head == .different ? 1 : 0))
        let loaded = try model.load()
        #expect(loaded.tree.tied.isEmpty == (head == .different))
        #expect(loaded.report.warnings == matching.warnings)
    }

    @Test("a table that the file holds under the head's name only is found") func headInPlaceOfTable() throws {
        let model = try TinyModel(TinyConfig.tiedLlama) { tensors, _ in
            let index = try #require(tensors.firstIndex { $0.name == "model.embed_tokens.weight" })
            tensors[index].name = "lm_head.weight"
        }
        let matching = try model.matching
        #expect(matching.missing.isEmpty)
        #expect(matching.sources["model.embed_tokens.weight"]?.key == "lm_head.weight")
    }

    // MARK: Quantized weights

    @Test("tensors that describe a quantized weight belong to it; without the weight they are unexpected")
    func companions() throws {
        let module = "model.layers.0.mlp.up_proj"
        let model = try TinyModel(TinyConfig.llama) { tensors, _ in
            for ending in [".weight.absmax", ".weight.quant_map", ".SCB", ".weight_format"] {
                tensors.append((module + ending, TinyModel.values([2], seed: 0)))
            }
            tensors.append(("model.layers.7.mlp.up_proj.weight.absmax", TinyModel.values([2], seed: 0)))
        }
        let matching = try model.matching
        let source = try #require(matching.sources[module + ".weight"])
        #expect(source.companions["absmax"] == module + ".weight.absmax")
        #expect(source.companions["quant_map"] == module + ".weight.quant_map")
        #expect(source.companions[QuantizedNames.rowScales] == module + ".SCB")
        #expect(source.companions[QuantizedNames.weightFormat] == module + ".weight_format")
        #expect(matching.unexpected == ["model.layers.7.mlp.up_proj.weight.absmax"])
    }
}

/// Names without tensors.
private struct ListedCheckpoint: Checkpoint {
    let names: [String]
    let files: [URL] = []
    let metadata: [String: String] = [:]

    func descriptor(_ name: String) -> TensorDescriptor? { nil }
    func tensor(_ name: String) throws -> Tensor { throw CheckpointError.noSuchTensor(name: name, files: []) }
    func prefetch(_ name: String) {}
    func dropPages(_ name: String) {}
}
