import Foundation
import Nibble
import NibbleCore
import NibbleGeneration
import NibbleModels
import NibbleTestSupport
import Testing

/// Models whose layers keep a state of fixed size.
@Suite struct RecurrentModelTests {
    private func load(_ name: String, _ change: (inout LoadConfiguration) -> Void = { _ in }) throws -> PretrainedModel {
        let folder = try RecurrentConfigs.folder(name)
        defer { try? FileManager.default.removeItem(at: folder) }
        var configuration = LoadConfiguration()
        configuration.dtype = .float32
        change(&configuration)
        return try PretrainedModel.load(folder: folder, configuration)
    }

    static let text: [Int32] = (0..<400).map { (place: Int) -> Int32 in
        let number = place * 37 + place * place * 11
        return Int32(number % 60 + 3)
    }

    private func logits(_ session: any DecodingSession, _ tokens: some Sequence<Int32>, row: Int = 0) throws -> [Float] {
        try session.feed([RowTokens(row: row, tokens: Array(tokens))], logits: .all) { Array($0.values) }
    }

    private func alone(_ model: PretrainedModel, _ tokens: some Sequence<Int32>) throws -> [Float] {
        try logits(try model.model.makeSession(SessionRequest(rows: 1, capacity: 400)), tokens)
    }

    private func agree(_ got: some Collection<Float>, _ wanted: some Collection<Float>) -> Bool {
        !got.isEmpty && got.count == wanted.count && zip(got, wanted).allSatisfy { abs($0 - $1) < 2e-4 }
    }

    @Test("a prompt gives the same logits whichever way it is cut", arguments: RecurrentConfigs.names)
    func chunks(name: String) throws {
        let model = try load(name)
        let prompt = Self.text.prefix(150)
        let wanted = try alone(model, prompt)
        #expect(Set(wanted.map { ($0 * 1000).rounded() }).count > 100)
        for cuts in [[1, 149], [64, 64, 22], [31, 33, 1, 85], [149, 1], Array(repeating: 1, count: 150), [32, 32, 32, 54]] {
            let session = try model.model.makeSession(SessionRequest(rows: 1, capacity: 200))
            var start = 0
            var found: [Float] = []
            for count in cuts {
                found += try logits(session, prompt[start..<start + count])
                start += count
            }
            #expect(agree(found, wanted), "\(cuts)")
        }
        // A session feeds at most 512 tokens at once.
        let long = Self.text + Self.text.prefix(200)
        let width = model.model.vocabularySize
        let (whole, halves) = (
            try model.model.makeSession(SessionRequest(rows: 1, capacity: 600)),
            try model.model.makeSession(SessionRequest(rows: 1, capacity: 600))
        )
        let last = try logits(whole, long).suffix(width)
        _ = try logits(halves, long.prefix(299))
        #expect(agree(try logits(halves, long[299...]).suffix(width), last))
    }

    @Test("a row of a batch is the row alone, with padding or without", arguments: RecurrentConfigs.names)
    func batch(name: String) throws {
        let model = try load(name)
        let rows = [Self.text.prefix(70), Self.text[20..<33], Self.text[100..<101]].map(Array.init)
        let session = try model.model.makeSession(SessionRequest(rows: 3, capacity: 100))
        let first = try session.feed(rows.indices.map { RowTokens(row: $0, tokens: rows[$0]) }, logits: .all) {
            Array($0.values)
        }
        #expect(agree(first, try rows.flatMap { try alone(model, $0) }))
        func padding(_ row: [Int32]) -> [Int32] { Array(repeating: 0, count: 70 - row.count) }
        let padded: [[Int32]] = rows.map { padding($0) + $0 }
        let mask: [[Int32]] = rows.map { padding($0) + Array(repeating: 1, count: $0.count) }
        let output = try model.forward(inputIDs: padded, attentionMask: mask)
        let values = withExtendedLifetime(output) { Array($0.logits.hostElements(Float.self)) }
        let width = model.model.vocabularySize
        for (row, tokens) in rows.enumerated() {
            let from = (row * 70 + 70 - tokens.count) * width
            #expect(agree(values[from..<(row + 1) * 70 * width], try alone(model, tokens)), "row \(row)")
        }
    }

    @Test("rows that stem from one go on by themselves", arguments: RecurrentConfigs.names)
    func forks(name: String) throws {
        let model = try load(name)
        let session = try model.model.makeSession(SessionRequest(rows: 3, capacity: 200))
        _ = try session.feed([RowTokens(row: 0, tokens: Array(Self.text.prefix(45)))], logits: .last) { _ in }
        try session.gather([0, 0, 0])
        var held = Array(repeating: Array(Self.text.prefix(45)), count: 3)
        for step in 0..<30 {
            if step % 4 == 3 {
                let sources = [step % 3, 0, (step + 1) % 3]
                try session.gather(sources)
                held = sources.map { held[$0] }
            }
            let next = (0..<3).map { (row: Int) -> Int32 in Int32(3 + (step * 7 + row * 13) % 50) }
            let found = try session.feed((0..<3).map { RowTokens(row: $0, tokens: [next[$0]]) }, logits: .last) {
                Array($0.values)
            }
            for row in 0..<3 { held[row].append(next[row]) }
            guard step % 10 == 9 else { continue }
            let width = model.model.vocabularySize
            for row in 0..<3 {
                #expect(agree(found[row * width..<(row + 1) * width], try alone(model, held[row]).suffix(width)), "\(step)")
            }
        }
    }

    @Test("rows are rolled back to the last call or the last prompt, or to nothing", arguments: RecurrentConfigs.names)
    func rollback(name: String) throws {
        let model = try load(name).model
        let session = try model.makeSession(SessionRequest(rows: 1, capacity: 400))
        _ = try logits(session, Self.text.prefix(50))
        for token in Self.text[50..<80] { _ = try logits(session, [token]) }
        #expect([0, 50, 79, 80].allSatisfy { session.canTruncate(row: 0, to: $0) })
        #expect(![10, 49, 51, 78].contains { session.canTruncate(row: 0, to: $0) })
        #expect(throws: SessionError.cannotTruncate(row: 0, from: 80, to: 70)) { try session.truncate(row: 0, to: 70) }
        #expect(try session.rollBack(row: 0, to: 79) == 79)
        #expect(try session.rollBack(row: 0, to: 70) == 50)
        let fresh = try model.makeSession(SessionRequest(rows: 1, capacity: 400))
        let wanted = try logits(fresh, Self.text.prefix(90)).suffix(40 * model.vocabularySize)
        #expect(agree(try logits(session, Self.text[50..<90]), wanted))
        // Drafts that are not accepted leave the state before them.
        _ = try logits(session, [5, 6, 7])
        #expect(try session.rollBack(row: 0, to: 91) == 90)
        #expect(try session.rollBack(row: 0, to: 20) == 0)
        #expect(agree(try logits(session, Self.text.prefix(90)).suffix(40 * model.vocabularySize), wanted))
    }

    @Test(
        "beams, drafts and prompt look-up give the ids of a model that reads everything anew", arguments: RecurrentConfigs.names)
    func generation(name: String) async throws {
        let model = try load(name)
        var config = GenerationConfig(maxNewTokens: 40, doSample: false)
        config.eosTokenId = []
        let prompt = Array(Self.text.prefix(70))
        func generate(_ change: (inout GenerationRequest) -> Void) async throws -> [Int32] {
            var request = GenerationRequest(inputs: [prompt], config: config)
            change(&request)
            return try await model.generate(request).sequences[0]
        }
        let rereading = RereadingModel(base: model.model)
        let plain = try await generate { _ in }
        #expect(plain == (try Generator(model: rereading).generate(inputs: [prompt], config: config).sequences[0]))
        #expect(try await generate { $0.config.promptLookupNumTokens = 10 } == plain)
        #expect(try await generate { $0.assistant = model.model } == plain)
        config.numBeams = 3
        config.maxNewTokens = 20
        #expect(
            try await generate { _ in }
                == (try Generator(model: rereading).generate(inputs: [prompt], config: config).sequences[0]))
    }

    @Test("a conversation goes on from what its session holds", arguments: RecurrentConfigs.names)
    func conversation(name: String) async throws {
        let model = try load(name)
        let kept = KeptSession()
        var config = GenerationConfig(maxNewTokens: 12, doSample: false)
        config.eosTokenId = []
        var held = Array(Self.text.prefix(50))
        for turn in 0..<3 {
            var request = GenerationRequest(inputs: [held], config: config)
            let fresh = try await model.generate(request)
            request.keptSession = kept
            let output = try await model.generate(request)
            #expect(output.sequences == fresh.sequences, "turn \(turn)")
            // The last token of an answer is never fed.
            #expect(output.cachedTokens == (turn == 0 ? 0 : held.count - 20 - 1), "turn \(turn)")
            held = output.sequences[0] + Self.text[200 + 20 * turn..<220 + 20 * turn]
        }
    }

    @Test("memory does not grow with the context but for attention", arguments: RecurrentConfigs.names)
    func memory(name: String) throws {
        let model = try load(name)
        func bytes(_ capacity: Int) throws -> Int {
            try model.model.makeSession(SessionRequest(rows: 2, capacity: capacity)).cacheByteCount
        }
        let folder = try RecurrentConfigs.folder(name)
        defer { try? FileManager.default.removeItem(at: folder) }
        func plan(_ context: Int) throws -> PlacementPlan {
            var configuration = LoadConfiguration()
            configuration.dtype = .float32
            configuration.context = context
            configuration.batchSize = 2
            return try LoadPreview(folder: folder, configuration).placement
        }
        func cache(_ plan: PlacementPlan) -> Int { plan.devices.reduce(0) { $0 + $1.cache } }
        let (short, long) = (try plan(1024), try plan(4096))
        #expect(short.stateBytes > 0 && short.stateBytes == long.stateBytes)
        #expect(cache(long) - long.stateBytes == 4 * (cache(short) - short.stateBytes))
        #expect(try bytes(1024) == cache(short) && bytes(4096) == cache(long))
        if name == "delta only" { #expect(cache(long) == long.stateBytes) }
    }

    @Test("a text's vector does not depend on what ran before it", arguments: RecurrentConfigs.names)
    func embeddings(name: String) throws {
        let model = try #require(try load(name).model as? LanguageModel)
        let long = Self.text + Self.text.prefix(200)
        func vector(_ lengths: Int...) throws -> [Float] {
            let pass = try EmbeddingPass(model, capacity: 600)
            var last: [Float] = []
            for length in lengths {
                var text = EmbeddingPass.Text(Array(long.prefix(length)), .last)
                var found: [Float]?
                while found == nil { found = try pass.run(&text) }
                last = found ?? []
            }
            return last
        }
        let alone = try vector(150)
        #expect(agree(try vector(600, 5, 150), alone))
        #expect(!agree(try vector(149), alone))
        #expect(agree(try vector(5, 600), try vector(600)))
    }

    @Test("a quantized checkpoint answers as the load it was written from", arguments: RecurrentConfigs.names, ["nf4", "int8"])
    func written(name: String, form: String) throws {
        let source = try RecurrentConfigs.folder(name)
        let target = source.appending(path: "written")
        defer { try? FileManager.default.removeItem(at: source) }
        var configuration = LoadConfiguration()
        configuration.dtype = .float32
        configuration.quantization =
            form == "int8"
            ? BitsAndBytesConfig(loadIn8Bit: true)
            : BitsAndBytesConfig(loadIn4Bit: true, computeDType: .float32, quantType: .nf4)
        // Fused experts are written in 4 bits only.
        configuration.followsReference = form == "int8"
        try CheckpointExport.quantizedModel(source, to: target, configuration)
        let loaded = try PretrainedModel.load(folder: source, configuration)
        configuration.quantization = nil
        let written = try PretrainedModel.load(folder: target, configuration)
        #expect(agree(try alone(written, Self.text.prefix(60)), try alone(loaded, Self.text.prefix(60))))
        #expect(written.report.quantizedModules.contains { $0.hasSuffix("out_proj") })
    }
}
