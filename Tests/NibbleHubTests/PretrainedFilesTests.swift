import Foundation
import Nibble
import NibbleCheckpoint
import NibbleHub
import NibbleTestSupport
import Testing

/// Which files of a model are downloaded.
@Suite struct PretrainedFilesTests {
    let fixture: HubFixture

    init() async throws { fixture = try await HubFixture() }

    private func configuration(variant: String? = nil) -> LoadConfiguration {
        var configuration = LoadConfiguration()
        configuration.hub = fixture.configuration
        configuration.variant = variant
        return configuration
    }

    private func downloaded(_ parts: PretrainedFileSet = .all, variant: String? = nil) async throws -> [String] {
        let folder = try await PretrainedFiles.folder(for: HubFixture.name, parts, configuration(variant: variant))
        #expect(folder.path == fixture.snapshot.path)
        return fixture.listing("snapshots/\(folder.lastPathComponent)").filter { !$0.hasSuffix("templates") }
    }

    static let tokenizer = ["additional_chat_templates/tool.jinja", "tokenizer.json", "tokenizer_config.json"]

    @Test(
        "only what is needed",
        arguments: [
            (.config, ["config.json"]), (.tokenizer, ["config.json"] + tokenizer),
            ([.config, .weights], ["config.json", "generation_config.json", "model.safetensors"]),
            (.all, ["config.json", "generation_config.json", "model.safetensors"] + tokenizer),
        ] as [(PretrainedFileSet, [String])])
    func parts(parts: PretrainedFileSet, expected: [String]) async throws {
        #expect(try await downloaded(parts) == expected.sorted())
    }

    @Test(
        "weights in the order in which loading takes them",
        arguments: [
            (nil, ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"], ["model.safetensors"]),
            (
                nil, ["model.safetensors.index.json", "pytorch_model.bin"],
                ["a-1.safetensors", "a-2.safetensors", "model.safetensors.index.json"]
            ),
            (nil, ["pytorch_model.bin", "pytorch_model.bin.index.json"], ["pytorch_model.bin"]),
            (nil, ["pytorch_model.bin.index.json"], ["a-1.safetensors", "a-2.safetensors", "pytorch_model.bin.index.json"]),
            ("fp16", ["model.safetensors", "model.fp16.safetensors"], ["model.fp16.safetensors"]),
            (
                "fp16", ["model.safetensors", "model.safetensors.index.fp16.json"],
                ["a-1.safetensors", "a-2.safetensors", "model.safetensors.index.fp16.json"]
            ),
        ] as [(String?, [String], [String])])
    func weights(variant: String?, there: [String], expected: [String]) async throws {
        let index = "{\"weight_map\": {\"x\": \"a-2.safetensors\", \"y\": \"a-1.safetensors\", \"z\": \"a-2.safetensors\"}}"
        fixture.server.change(HubFixture.name) { repository in
            repository.files = repository.files.filter { $0.key == "config.json" }
            for name in there + ["a-1.safetensors", "a-2.safetensors", "a-3.safetensors"] {
                repository.files[name] =
                    name.hasSuffix(".json") ? HubFixture.text(index) : .init(content: Array(name.utf8), isLarge: true)
            }
        }
        #expect(try await downloaded([.config, .weights], variant: variant) == (expected + ["config.json"]).sorted())
    }

    @Test("weights that the config names") func namedWeights() async throws {
        fixture.server.change(HubFixture.name) {
            $0.files["config.json"] = HubFixture.text("{\"transformers_weights\": \"other.safetensors\"}")
            $0.files["other.safetensors"] = HubFixture.text("x")
        }
        #expect(try await downloaded([.config, .weights]) == ["config.json", "generation_config.json", "other.safetensors"])
    }

    @Test("an index may not leave the folder") func unsafeShard() async {
        fixture.server.change(HubFixture.name) {
            $0.files["model.safetensors"] = nil
            $0.files["model.safetensors.index.json"] = HubFixture.text("{\"weight_map\": {\"x\": \"../../../escape\"}}")
        }
        await #expect(throws: CheckpointError.self) { try await downloaded() }
    }

    @Test("what a repository lacks is named") func lacks() async throws {
        let variant = await #expect(throws: CheckpointError.self) { try await downloaded(variant: "fp16") }
        #expect(variant?.description.contains("model.safetensors is there: leave out the variant fp16") == true)
        fixture.server.change(HubFixture.name) {
            $0.files = $0.files.filter { !$0.key.hasSuffix(".safetensors") && !$0.key.hasSuffix(".bin") }
        }
        let weights = await #expect(throws: CheckpointError.self) { try await downloaded() }
        #expect(weights?.description.hasPrefix("no weights in owner/tiny-model: looked for model.safetensors") == true)
        fixture.server.change(HubFixture.name) { $0.files["config.json"] = nil }
        #expect(
            await #expect(throws: HubError.self) { try await downloaded() }
                == .fileNotFound("config.json", fixture.repository, revision: "main"))
    }

    @Test("absent files are marked as the Python libraries mark them") func absentMarkers() async throws {
        _ = try await downloaded()
        let markers = fixture.listing(".no_exist/\(fixture.snapshot.lastPathComponent)")
        #expect(markers.contains("chat_template.jinja") && markers.contains("model.safetensors.index.json"))
        #expect(!markers.contains("pytorch_model.bin") && !markers.contains("config.json"))
    }

    @Test("a cache that holds only a part says what is missing") func partOffline() async throws {
        _ = try await downloaded(.config)
        var offline = configuration()
        offline.hub?.isOffline = true
        #expect(try await PretrainedFiles.folder(for: HubFixture.name, .config, offline).path == fixture.snapshot.path)
        let error = await #expect(throws: HubError.self) { try await PretrainedFiles.folder(for: HubFixture.name, .all, offline) }
        #expect(error?.description.contains("model.safetensors") == true)
    }

    @Test(
        "of a repository of GGUF files one model is downloaded, with all its parts",
        arguments: [
            ("", ["Tiny-Q4_K_M.gguf"]), (":Q8_0", ["Tiny-Q8_0.gguf"]), (":Tiny-Q8_0.gguf", ["Tiny-Q8_0.gguf"]),
            (":bf16", ["BF16", "BF16/Tiny-BF16-00001-of-00002.gguf", "BF16/Tiny-BF16-00002-of-00002.gguf"]),
        ])
    func gguf(tag: String, expected: [String]) async throws {
        let names = ["Tiny-Q4_K_M.gguf", "Tiny-Q8_0.gguf", "mmproj-F16.gguf", "README.md"]
        let parts = ["BF16/Tiny-BF16-00001-of-00002.gguf", "BF16/Tiny-BF16-00002-of-00002.gguf"]
        fixture.server.change(HubFixture.name) { repository in
            repository.files = [:]
            for name in names + parts { repository.files[name] = .init(content: Array(name.utf8), isLarge: true) }
        }
        let file = try await PretrainedFiles.folder(for: HubFixture.name + tag, .all, configuration())
        #expect(file.path.hasSuffix(expected.first { $0.hasSuffix(".gguf") } ?? "?"))
        #expect(fixture.listing("snapshots/\(fixture.snapshot.lastPathComponent)").sorted() == expected)
        // From the cache, too.
        var offline = configuration()
        offline.hub?.isOffline = true
        #expect(try await PretrainedFiles.folder(for: HubFixture.name + tag, .tokenizer, offline) == file)
        let error = await #expect(throws: AutoModelError.self) {
            try await PretrainedFiles.folder(for: HubFixture.name + ":Q2_K", .all, configuration())
        }
        #expect(error.map { "\($0)".contains("Tiny-Q8_0.gguf") } == true)
    }

    @Test(
        "names that are neither",
        arguments: ["/no/such/folder", "./model", "a/b/c", "~/model", "two words", "owner/name:", ":Q4_K_M"]) func neither(
            name: String
        ) async
    {
        let error = await #expect(throws: AutoModelError.self) {
            try await PretrainedFiles.folder(for: name, .all, configuration())
        }
        #expect(error == .noSuchFolder(name))
    }

    @Test("a model, its tokenizer and a pipeline by name") func model() async throws {
        let stories = Fixtures.models.appending(path: "bloom-stories")
        var files: [String: HubServer.File] = [:]
        for name in try FileManager.default.contentsOfDirectory(atPath: stories.path) {
            let content = Array(try Data(contentsOf: stories.appending(path: name)))
            files[name] = .init(content: content, isLarge: content.count > 100_000)
        }
        fixture.server.add(.init(files: files), as: "stories")
        let notices = Log<String>()
        var configuration = configuration()
        configuration.notice = { notices.add($0) }
        let generate = try await pipeline(.textGeneration, model: "stories", configuration: configuration)
        let config = GenerationConfig(maxNewTokens: 5, doSample: false)
        let text = try await generate("Once upon a time", config)[0].generatedText
        let local = try await pipeline(.textGeneration, model: stories.path)
        #expect(try await local("Once upon a time", config)[0].generatedText == text)
        #expect(notices.all.isEmpty)
        try await fixture.server.stop()
        configuration.hub?.retries = 0
        _ = try await AutoTokenizer.from(pretrained: "stories", configuration: configuration)
        #expect(notices.all.count == 1)
    }
}
