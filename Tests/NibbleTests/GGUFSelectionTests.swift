import Foundation
import Nibble
import NibbleTestSupport
import Testing

/// Which of several GGUF files is taken.
@Suite struct GGUFSelectionTests {
    private static let quantized = [
        "README.md", "Tiny-Q8_0.gguf", "Tiny-Q4_K_M.gguf", "Tiny-IQ4_XS.gguf", "mmproj-Tiny-f16.gguf", "Tiny.imatrix.gguf",
    ]

    /// An empty folder with empty files of these names.
    private func folder(_ names: [String]) throws -> URL {
        let folder = try Fixtures.temporaryFolder()
        for name in names { try Data().write(to: folder.appending(path: name)) }
        return folder
    }

    @Test(
        "a name, a quantization, or the usual one",
        arguments: [
            (nil, "Tiny-Q4_K_M.gguf"), ("q8_0", "Tiny-Q8_0.gguf"), ("IQ4_XS", "Tiny-IQ4_XS.gguf"),
            ("Tiny-Q8_0.gguf", "Tiny-Q8_0.gguf"),
        ])
    func choice(wanted: String?, expected: String) async throws {
        let folder = try folder(Self.quantized)
        defer { try? FileManager.default.removeItem(at: folder) }
        var configuration = LoadConfiguration()
        configuration.ggufFile = wanted
        #expect(try await PretrainedFiles.folder(for: folder.path, .all, configuration).lastPathComponent == expected)
    }

    @Test(
        "not exactly one is an error that lists them",
        arguments: [
            (["a-Q5_0.gguf", "b-Q6_K.gguf"], nil), (["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"], nil), (["a-Q4_K_M.gguf"], "Q3_K"),
            (["a-IQ4_K_M.gguf"], "Q4_K_M"), (["a-Q4_K_M.gguf"], ""),
        ] as [([String], String?)])
    func ambiguous(names: [String], wanted: String?) async throws {
        let folder = try folder(names)
        defer { try? FileManager.default.removeItem(at: folder) }
        var configuration = LoadConfiguration()
        configuration.ggufFile = wanted
        let error = await #expect(throws: AutoModelError.self) {
            try await PretrainedFiles.folder(for: folder.path, .all, configuration)
        }
        #expect(error == .ambiguousGGUF(folder.path, wanted: wanted, files: names))
        #expect("\(error!)".contains(names[0]) && "\(error!)".contains("--gguf-file"))
    }

    @Test("a folder with config.json is a folder, whatever lies beside it")
    func withConfig() async throws {
        let folder = try folder(["config.json", "a-Q5_0.gguf", "b-Q6_K.gguf"])
        defer { try? FileManager.default.removeItem(at: folder) }
        #expect(try await PretrainedFiles.folder(for: folder.path) == URL(filePath: folder.path))
    }

    @Test("a folder with one file is that file's model")
    func single() async throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let file = Fixtures.repository.appending(path: "Tests/Fixtures/gguf/llama.gguf")
        try FileManager.default.copyItem(at: file, to: folder.appending(path: "llama.gguf"))
        let model = try await AutoModelForCausalLM.from(pretrained: folder.path)
        #expect(model.folder.lastPathComponent == "llama.gguf")
        #expect(try await AutoTokenizer.from(pretrained: folder.path).encode("the the") == [257, 258])
    }
}
