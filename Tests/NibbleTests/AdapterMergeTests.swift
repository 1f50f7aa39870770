import Foundation
import Nibble
import NibbleCheckpoint
import NibbleCore
import NibbleLoading
import NibbleModels
import NibbleTestSupport
import Testing

/// Recorded LoRA adapters, merged, against what peft merges.
@Suite struct AdapterMergeTests {
    @Test("merged weights have the recorded bytes and answer the recorded logits", arguments: AdapterFixture.all)
    func merged(fixture: AdapterFixture) throws {
        for (load, expected) in try fixture.expected()["merged"]?.object ?? [:] {
            let folder = try Fixtures.temporaryFolder()
            defer { try? FileManager.default.removeItem(at: folder) }
            let output = folder.appending(path: "merged")
            let configuration = try fixture.configuration(load)
            func merge() throws {
                try CheckpointExport.mergedModel(
                    fixture.base().folder, adapters: try fixture.adapters(), to: output, configuration)
            }
            guard expected["error"] == nil else {
                #expect(throws: LoadError.self, "\(load)") { try merge() }
                continue
            }
            try merge()
            for (module, hashes) in expected["sha256"]?.object ?? [:] {
                for (part, hash) in hashes.object ?? [:] where part != "dtype" && part != "offset" {
                    let found = try MergedFile(output).tensor(module, part)?.digest
                    #expect(found == hash.string, "\(load) \(module).\(part)")
                }
            }
            var reading = configuration
            reading.quantization = nil
            let model = try PretrainedModel.load(folder: output, reading)
            let rows = try #require(expected["rows"]?.int)
            let error = try fixture.error(model, against: "merged_\(load)", rows: rows)
            print("  \(fixture.name) merged \(load): \(error)")
            #expect(error <= AdapterFixture.bound(load), "\(load)")
            if expected["tied_after"]?.bool == false {
                let config = try JSONValue(contentsOf: output.appending(path: "config.json"))
                #expect(config["tie_word_embeddings"]?.bool != true)
            }
        }
    }

    @Test("without compatibility mode the sum is quantized once", arguments: ["nf4"])
    func quantizedOnce(load: String) throws {
        let fixture = try #require(AdapterFixture.all.first { $0.name == "llama_qv" })
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let (dense, quantized, direct) = (
            folder.appending(path: "dense"), folder.appending(path: "quantized"), folder.appending(path: "direct")
        )
        var configuration = try fixture.configuration(load)
        configuration.followsReference = false
        try CheckpointExport.mergedModel(
            fixture.base().folder, adapters: [fixture.folder], to: quantized, configuration)
        try CheckpointExport.mergedModel(
            fixture.base().folder, adapters: [fixture.folder], to: dense, try fixture.configuration("float32"))
        try CheckpointExport.quantizedModel(dense, to: direct, configuration)
        let files = try [quantized, direct].map { try CheckpointFiles.open(folder: $0) }
        #expect(files[0].names == files[1].names)
        for name in files[0].names { #expect(try files[0].tensor(name).digest == files[1].tensor(name).digest, "\(name)") }
    }

    @Test("a quantized base is refused unless compatibility is asked for") func quantizedBase() throws {
        let fixture = try #require(AdapterFixture.all.first { $0.name == "llama_qv" })
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let base = fixture.other("llama_bnb_nf4_dq").folder
        var configuration = LoadConfiguration()
        #expect {
            try CheckpointExport.mergedModel(
                base, adapters: [fixture.folder], to: folder.appending(path: "merged"), configuration)
        } throws: { error in
            guard case .unmergeable(_, let reason, let remedy)? = error as? LoadError else { return false }
            return reason.contains("quantized") && remedy.contains("--reference-behaviour")
        }
        configuration.followsReference = true
        let warnings = Notices()
        configuration.notice = { warnings.add($0) }
        try CheckpointExport.mergedModel(
            base, adapters: [fixture.folder], to: folder.appending(path: "merged"), configuration)
        #expect(warnings.texts.contains { $0.contains("rounded a second time") })
    }
}

private final class Notices: @unchecked Sendable {
    private let lock = NSLock()
    private var all: [String] = []
    func add(_ text: String) { lock.withLock { all.append(text) } }
    var texts: [String] { lock.withLock { all } }
}

/// Tensors of a merged checkpoint by the names of modules in the reference.
private struct MergedFile {
    private let checkpoint: any Checkpoint
    private let source: ModelSource
    private let matching: KeyMatching

    init(_ folder: URL) throws {
        source = try ModelSource(folder: folder)
        checkpoint = try source.checkpoint(variant: nil, dtype: nil)
        matching = try KeyMatching(source.architecture, checkpoint)
    }

    /// - Parameter part: `weight`, `bias`, a describing tensor such as `absmax`, or a parameter of a set of experts.
    func tensor(_ module: String, _ part: String) throws -> Tensor? {
        let known = Set(source.architecture.tree.parameters.map(\.path))
        func path(_ name: String) -> String? { source.architecture.keys.parameter(for: name) { known.contains($0) } }
        if ["weight", "bias", "gate_up_proj", "down_proj"].contains(part) {
            guard let path = path("\(module).\(part)") else { return nil }
            if let key = matching.sources[path]?.key { return try checkpoint.tensor(key) }
            return try experts(path, isDown: part == "down_proj")
        }
        return try path("\(module).weight").flatMap { matching.sources[$0]?.companions[part] }.map(checkpoint.tensor)
    }

    /// The tensors of single experts as the fused parameter.
    private func experts(_ path: String, isDown: Bool) throws -> Tensor {
        let set = String(path[..<(path.lastIndex(of: ".") ?? path.endIndex)])
        var bytes: [UInt8] = []
        var index = 0
        while matching.expertSources["\(set).\(index).down_proj.weight"] != nil {
            for projection in isDown ? ["down_proj"] : ["gate_proj", "up_proj"] {
                let key = matching.expertSources["\(set).\(index).\(projection).weight"]?.key ?? ""
                let tensor = try checkpoint.tensor(key)
                withExtendedLifetime(tensor) { bytes += Array($0.hostBytes) }
            }
            index += 1
        }
        return .host(bytes, .uint8, [bytes.count])
    }
}
