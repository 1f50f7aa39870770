import Nibble
import NibbleTestSupport
import Testing

/// Rows of one call of `generate` that name adapters of their own.
@Suite(.computing) struct AdapterRequestTests {
    private static let prompts: [[Int32]] = [[5, 9, 14, 20], [7, 3], [5, 9, 14, 20], [5, 9, 14, 20], [11, 4, 6, 8, 12]]
    private static let names = [["a"], [], ["b"], ["b", "a"], ["b"]]

    private func model() throws -> PretrainedModel {
        let fixture = try #require(AdapterFixture.all.first { $0.name == "llama_two" })
        let model = try PretrainedModel.load(folder: try fixture.base().folder, try fixture.configuration("float32"))
        for (name, folder) in zip(["a", "b"], try fixture.adapters()) { try model.load(adapter: folder, named: name, scale: 4) }
        return model
    }

    private func request(_ rows: [[Int32]], _ config: GenerationConfig, _ adapters: [[String]]? = nil) -> GenerationRequest {
        var config = config
        (config.maxNewTokens, config.minNewTokens, config.padTokenId) = (12, 12, 0)
        var request = GenerationRequest(inputs: rows, config: config)
        request.attentionMask = rows.map { $0.map { _ in 1 } }
        request.adapters = adapters
        return request
    }

    /// Rows of equal length, padded on the left.
    private func padded(_ rows: [[Int32]]) -> (ids: [[Int32]], mask: [[Int32]]) {
        let width = rows.map(\.count).max() ?? 0
        return (
            rows.map { Array(repeating: 0, count: width - $0.count) + $0 },
            rows.map { Array(repeating: 0, count: width - $0.count) + $0.map { _ in 1 } }
        )
    }

    private static let modes = [
        GenerationConfig(doSample: false), GenerationConfig(doSample: false, numBeams: 3),
        guided,
    ]
    private static let guided = {
        var config = GenerationConfig(doSample: false)
        config.guidanceScale = 1.5
        return config
    }()

    @Test("each row answers as it does alone", arguments: modes)
    func rows(config: GenerationConfig) async throws {
        let model = try model()
        try model.activate(["a"])
        var together = request(Self.prompts, config, Self.names)
        (together.inputs, together.attentionMask) = padded(Self.prompts)
        let found = try await model.generate(together).sequences.map { Array($0.suffix(12)) }
        #expect(model.adapters == ["a", "b"])
        var answers: Set<[Int32]> = []
        for (row, names) in Self.names.enumerated() {
            try model.activate(names)
            let alone = try await model.generate(request([Self.prompts[row]], config)).sequences[0].suffix(12)
            #expect(found[row] == Array(alone), "row \(row)")
            answers.insert(found[row])
        }
        // The first, third and fourth prompt are the same.
        #expect(answers.count == Self.names.count)
    }

    @Test("one entry is for all rows, and the active adapters stay what they were") func shared() async throws {
        let model = try model()
        let config = GenerationConfig(doSample: false)
        try model.activate(["b"])
        let b = try await model.generate(request([Self.prompts[0]], config)).sequences
        try model.activate([])
        let base = try await model.generate(request([Self.prompts[0]], config)).sequences
        #expect(b != base)
        let rows = [Self.prompts[0], Self.prompts[0]]
        #expect(try await model.generate(request(rows, config, [["b"]])).sequences == b + b)
        #expect(try await model.generate(request(rows, config)).sequences == base + base)
        // It stays attached for rows, and is replaced and unloaded as others are.
        try model.activate(["a"])
        #expect(try await model.generate(request(rows, config, [["b"], []])).sequences == b + base)
        var streamed: [[Int32]] = []
        for try await event in model.stream(request(rows, config, [["b"], []])) {
            if case .finished(let output) = event { streamed = output.sequences }
        }
        #expect(streamed == b + base)
        try model.unload(adapter: "b")
        await #expect(throws: LoadError.unknownAdapter("b", loaded: ["a"])) {
            _ = try await model.generate(request(rows, config, [["b"]]))
        }
        try model.activate([])
        #expect(try await model.generate(request(rows, config)).sequences == base + base)
    }

    @Test("what rows cannot use is refused by name") func refusals() async throws {
        let model = try model()
        let config = GenerationConfig()
        let count = await #expect(throws: GenerationError.self) {
            _ = try await model.generate(request(padded(Self.prompts).ids, config, [["a"], ["b"]]))
        }
        #expect("\(try #require(count))" == "adapters: expected 1 or 5 rows, found 2")
        await #expect(throws: LoadError.unknownAdapter("c", loaded: ["a", "b"])) {
            for try await _ in model.stream(request([[5]], config, [["c"]])) {}
        }
        let tokens = try #require(AdapterFixture.all.first { $0.name == "llama_tokens" })
        try model.load(adapter: tokens.folder, named: "tokens")
        for names in [["tokens"], ["a"]] {
            let error = await #expect(throws: LoadError.self) { _ = try await model.generate(request([[5]], config, [names])) }
            let text = "\(try #require(error))"
            #expect(text.contains("one that changes"))
        }
        try model.activate([])
        _ = try await model.generate(request([[5]], config, [["a"]]))
        await #expect(throws: LoadError.self) { _ = try await model.generate(request([[5]], config, [["tokens"]])) }
    }
}
