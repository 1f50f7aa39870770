import Foundation
import Nibble
import NibbleCore
import NibbleModels
import NibbleServer
import NibbleTestSupport
import Testing

/// Adapters as models of a server.
@Suite struct AdapterServerTests {
    /// An adapter of random numbers; the folder's last part is its seed.
    private static func adapter(_ model: LanguageModel, _ folder: URL, _ name: String) throws -> LowRankAdapter {
        guard let seed = UInt64(folder.lastPathComponent) else { throw BrokenFolder(path: folder.path) }
        var layers: [String: LowRankFactors] = [:]
        for (index, name) in model.adapters.layerNames.sorted().enumerated() {
            guard let layer = model.adapters.layer(name)?.layer else { continue }
            let salt = seed << 16 | UInt64(index) << 1
            let (n, k) = (layer.outFeatures, layer.inFeatures)
            layers[name] = LowRankFactors(
                a: .host(numbers(8 * k, salt), .float32, [8, k]),
                b: .host(numbers(n * 8, salt + 1), .float32, [n, 8]), scale: 1)
        }
        return LowRankAdapter(name: name, layers: layers)
    }

    private static func numbers(_ count: Int, _ seed: UInt64) -> [Float] {
        (0..<count).map { (RandomStream.uniform(seed: seed, stream: 1, counter: UInt64($0)) - 0.5) * 0.7 }
    }

    private struct BrokenFolder: Error, CustomStringConvertible {
        var path: String
        var description: String { "\(path): adapter_config.json is missing" }
    }

    private static func with(
        updates: Bool = true, adapters: [String] = ["pirate=/adapters/1", "poet=/adapters/2"],
        _ body: @Sendable @escaping (TestServer, EngineService) async throws -> Void
    ) async throws {
        let real = try RealModel.stories
        let model = real.model.model
        let configuration = TestServer.configured { $0.allowsAdapterUpdates = updates }
        let reader: @Sendable (URL, String) throws -> LowRankAdapter = { try Self.adapter(model, $0, $1) }
        try await TestServer.with(
            real, EngineConfiguration(maxBatch: 4, context: 512), configuration, readAdapter: reader
        ) { server, service in
            for adapter in adapters {
                let parts = adapter.components(separatedBy: "=")
                try await service.loadAdapter(parts[0], path: parts[1], replaces: false)
            }
            try await body(server, service)
            // The model is shared by all tests.
            for adapter in service.adapters { _ = try await service.unloadAdapter(adapter.name) }
        }
    }

    private static func text(_ server: TestServer, _ model: String, _ more: JSONObject = [:]) async throws -> String {
        var body: JSONObject = ["model": .string(model), "prompt": "Once upon a time", "max_tokens": 24, "temperature": 0]
        for (key, value) in more.members { body[key] = value }
        let json = try await server.json("/v1/completions", .object(body))
        #expect(json["model"]?.string == model)
        return try #require(json["choices"]?[0]?["text"]?.string)
    }

    private static func load(_ server: TestServer, _ name: String, _ path: String, _ more: JSONObject = [:]) async throws
        -> TestServer.Answer
    {
        var body: JSONObject = ["lora_name": .string(name), "lora_path": .string(path)]
        for (key, value) in more.members { body[key] = value }
        return try await server.send("/v1/load_lora_adapter", JSONValue.object(body).encoded())
    }

    private static func unload(_ server: TestServer, _ name: String) async throws -> TestServer.Answer {
        try await server.send("/v1/unload_lora_adapter", JSONValue.object(["lora_name": .string(name)]).encoded())
    }

    @Test("adapters are models with a parent, and the request's model chooses; many at once are each their own")
    func models() async throws {
        try await Self.with { server, _ in
            let models = try await server.send("/v1/models").json()["data"]?.array ?? []
            #expect(models.map { $0["id"]?.string } == ["stories", "pirate", "poet"])
            #expect(models.map { $0["parent"]?.string } == [nil, "stories", "stories"])
            #expect(models[1]["root"]?.string == "/adapters/1")
            #expect(try await server.send("/v1/models/poet").json()["parent"]?.string == "stories")
            let tags = try await server.send("/api/tags").json()["models"]?.array ?? []
            #expect(tags.map { $0["details"]?["parent_model"]?.string } == ["", "stories", "stories"])

            let names = ["stories", "pirate", "poet"]
            var alone: [String] = []
            for name in names { alone.append(try await Self.text(server, name)) }
            #expect(Set(alone).count == 3)
            let greedy = GenerationConfig(maxNewTokens: 24, doSample: false)
            let generated = try await RealModel.stories.generated("Once upon a time", greedy)[0].text
            #expect(alone[0] == generated)
            let expected = alone
            try await withThrowingTaskGroup { group in
                for index in 0..<9 {
                    group.addTask { (index % 3, try await Self.text(server, names[index % 3])) }
                }
                for try await (index, text) in group { #expect(text == expected[index]) }
            }
        }
    }

    @Test("llama.cpp's list of adapters and scales replaces the request's model")
    func scales() async throws {
        try await Self.with { server, _ in
            let list = try await server.send("/lora-adapters").json().array ?? []
            #expect(list.map { $0["path"]?.string } == ["/adapters/1", "/adapters/2"])
            let (pirate, poet) = (try #require(list[0]["id"]), try #require(list[1]["id"]))
            let base = try await Self.text(server, "stories")
            let one = try await Self.text(server, "pirate")
            func scaled(_ entries: [JSONObject], _ model: String = "stories") async throws -> String {
                try await Self.text(server, model, ["lora": .array(entries.map { .object($0) })])
            }
            #expect(try await scaled([["id": pirate, "scale": 1]]) == one)
            #expect(try await scaled([["id": pirate]]) == one)
            #expect(try await scaled([["id": pirate, "scale": 0]]) == base)
            #expect(try await scaled([], "pirate") == base)
            let both = try await scaled([["id": pirate, "scale": 1], ["id": poet, "scale": 1]])
            #expect(both != one && both != base)
            for wrong in ["[{\"id\":77}]", "[{\"scale\":1}]", "[{\"id\":0,\"scale\":1e9}]", "7", "[3]"] {
                let answer = try await server.send(
                    "/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":1,\"lora\":\(wrong)}")
                #expect(answer.status == 400 && answer.text.contains("lora"), "\(wrong)")
            }
        }
    }

    @Test("an unknown name is a 404 that lists the names")
    func unknown() async throws {
        try await Self.with { server, _ in
            let answer = try await server.send("/v1/completions", #"{"model":"sailor","prompt":"a","max_tokens":1}"#)
            #expect(answer.status == 404)
            let error = try answer.json()["error"]
            #expect(error?["code"] == "model_not_found")
            for name in ["'stories'", "'pirate'", "'poet'"] { #expect(error?["message"]?.string?.contains(name) == true) }
            #expect(try await server.send("/v1/models/sailor").status == 404)
            #expect(try await Self.unload(server, "sailor").status == 404)
        }
    }

    @Test("clients load, replace and unload adapters, and are told what is wrong")
    func updates() async throws {
        try await Self.with { server, _ in
            let loaded = try await Self.load(server, "sailor", "/adapters/3")
            #expect(loaded.status == 200 && loaded.text.contains("sailor"))
            let before = try await Self.text(server, "sailor")
            let twice = try await Self.load(server, "sailor", "/adapters/3")
            #expect(twice.status == 400 && twice.text.contains("already"))
            #expect(try await Self.load(server, "sailor", "/adapters/4", ["load_inplace": true]).status == 200)
            #expect(try await Self.text(server, "sailor") != before)
            let broken = try await Self.load(server, "other", "/adapters/broken")
            #expect(broken.status == 400 && broken.text.contains("adapter_config.json"))
            #expect(try await Self.load(server, "stories", "/adapters/5").status == 400)
            #expect(try await Self.load(server, "", "/adapters/5").status == 400)
            #expect(try await server.send("/v1/load_lora_adapter", "{}").status == 400)
            #expect(try await Self.unload(server, "sailor").status == 200)
            #expect(try await Self.unload(server, "sailor").status == 404)
            #expect(try await server.send("/v1/completions", #"{"model":"sailor","prompt":"a"}"#).status == 404)
            let document = try await server.send("/openapi.json").json()
            #expect(document["paths"]?["/v1/load_lora_adapter"]?["post"] != nil)
        }
        try await Self.with(updates: false) { server, _ in
            #expect(try await Self.load(server, "sailor", "/adapters/3").status == 404)
            #expect(try await Self.unload(server, "pirate").status == 404)
            let (pirate, base) = (try await Self.text(server, "pirate"), try await Self.text(server, "stories"))
            #expect(pirate != base)
            #expect(try await server.send("/openapi.json").json()["paths"]?["/v1/load_lora_adapter"] == nil)
        }
    }

    @Test("an adapter in use is unloaded when its requests have ended; new ones are refused at once")
    func inUse() async throws {
        try await Self.with { server, service in
            let expected = try await Self.text(server, "pirate", ["max_tokens": 200])
            let steps = service.counts().steps
            let answer = Task { try await Self.text(server, "pirate", ["max_tokens": 200]) }
            // On a busy machine the answer may be whole before anybody looks.
            try await wait { service.counts().running > 0 || service.counts().steps >= steps + 200 }
            let unloading = Task { try await Self.unload(server, "pirate") }
            try await wait { !service.adapters.contains { $0.name == "pirate" } }
            let refused = try await server.send("/v1/completions", #"{"model":"pirate","prompt":"a"}"#)
            #expect(refused.status == 404)
            #expect(try await unloading.value.status == 200)
            #expect(service.counts().running == 0)
            #expect(try await answer.value == expected)
        }
    }
}
