import Foundation
import Nibble
import NibbleLoading
import NibbleTestSupport
import Testing

/// Damaged JSON files of a model end in an error of Nibble's own or in something that works, never in a crash or a hang.
///
/// `NIBBLE_FUZZ` sets how many copies of each file are tried.
@Suite(.computing) struct FileMutationTests {
    private let folder: URL

    init() throws { folder = try Fixtures.temporaryFolder() }

    /// - Returns: how many copies were refused.
    private func mutate(
        _ source: URL, _ names: [String], seed: UInt64, rounds: Int = Damage.rounds, _ read: (URL) throws -> Void
    ) throws -> Int {
        for name in try FileManager.default.contentsOfDirectory(atPath: source.path) where !name.hasPrefix("expected") {
            try FileManager.default.copyItem(at: source.appending(path: name), to: folder.appending(path: name))
        }
        try read(folder)
        var refused = 0
        for name in names {
            let original = try Array(Data(contentsOf: source.appending(path: name)))
            var damage = Damage(original: original, seed: seed)
            for _ in 0..<rounds / names.count {
                try Data(damage.next()).write(to: folder.appending(path: name))
                do {
                    try read(folder)
                } catch {
                    refused += 1
                    let type = String(reflecting: Swift.type(of: error))
                    #expect(type.hasPrefix("Nibble"), "\(type): \(error)")
                }
            }
            try Data(original).write(to: folder.appending(path: name))
        }
        return refused
    }

    @Test("config.json and generation_config.json", arguments: ["llama", "t5"]) func config(name: String) throws {
        let model = FixtureModel(name, in: Fixtures.repository.appending(path: "Tests/Fixtures"))
        let refused = try mutate(model.folder, ["config.json", "generation_config.json"], seed: 11) {
            _ = try ModelSource(folder: $0)
            _ = try PretrainedModel.load(folder: $0)
        }
        #expect(refused > Damage.rounds / 20)
    }

    @Test("tokenizer.json and its companions") func tokenizer() throws {
        let source = Fixtures.models.appending(path: "bloom-stories")
        let small = try Fixtures.temporaryFolder()
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            try FileManager.default.copyItem(at: source.appending(path: name), to: small.appending(path: name))
        }
        // Reading the whole vocabulary takes long without optimization.
        let rounds = Damage.rounds / 5
        let refused = try mutate(small, ["tokenizer.json", "tokenizer_config.json"], seed: 12, rounds: rounds) {
            let tokenizer = try AutoTokenizer.from(model: $0)
            _ = tokenizer.decode(tokenizer.encode("Once upon a time, \u{E9} 12"))
        }
        #expect(refused > rounds / 20)
    }

    @Test("the tokenizer of a GGUF file") func ggufTokenizer() throws {
        let original = try Array(
            Data(contentsOf: Fixtures.repository.appending(path: "Tests/Fixtures/gguf/llama.gguf")).prefix(20_000))
        var damage = Damage(original: original, seed: 13)
        let file = folder.appending(path: "model.gguf")
        for _ in 0..<Damage.rounds {
            try Data(damage.next()).write(to: file)
            do {
                _ = try AutoTokenizer.from(model: file).encode("the the")
            } catch {
                let type = String(reflecting: Swift.type(of: error))
                #expect(type.hasPrefix("Nibble"), "\(type): \(error)")
            }
        }
    }
}
