import Foundation
import Nibble
import NibbleCore
import NibbleGeneration
import NibbleModels
import NibbleTestSupport
import Testing

/// Layers that see a window keep no more than it.
@Suite struct SlidingWindowTests {
    /// A tiny model with a window of four keys in its second layer or, with `max_window_layers` 0, in both.
    private func model(allLayers: Bool) throws -> PretrainedModel {
        let source = Fixtures.repository.appending(path: "Tests/Fixtures/fixtures/models/qwen2_window")
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        for name in ["model.safetensors", "generation_config.json"] {
            try FileManager.default.copyItem(at: source.appending(path: name), to: folder.appending(path: name))
        }
        var config = try #require(try JSONValue(contentsOf: source.appending(path: "config.json")).object)
        if allLayers { config["layer_types"] = ["sliding_attention", "sliding_attention"] }
        config["max_position_embeddings"] = 4096
        try Data(JSONValue.object(config).encoded().utf8).write(to: folder.appending(path: "config.json"))
        var configuration = LoadConfiguration()
        configuration.dtype = .float32
        return try PretrainedModel.load(folder: folder, configuration)
    }

    private static let text: [Int32] = (0..<400).map { (place: Int) -> Int32 in
        let number = place * 37 + place * place * 11
        return Int32(number % 58 + 3)
    }

    private func logits(_ session: any DecodingSession, _ tokens: some Sequence<Int32>, row: Int = 0) throws -> [Float] {
        try session.feed([RowTokens(row: row, tokens: Array(tokens))], logits: .all) { Array($0.values) }
    }

    private func agree(_ got: some Collection<Float>, _ wanted: some Collection<Float>) -> Bool {
        !got.isEmpty && got.count == wanted.count && zip(got, wanted).allSatisfy { abs($0 - $1) < 1e-4 }
    }

    @Test("memory is the window's, not the text's", arguments: [true, false])
    func bytes(allLayers: Bool) throws {
        let model = try model(allLayers: allLayers)
        func bytes(_ capacity: Int) throws -> Int {
            try model.model.makeSession(SessionRequest(rows: 2, capacity: capacity)).cacheByteCount
        }
        let (short, long) = (try bytes(1024), try bytes(4096))
        // The layer without a window grows by four.
        if allLayers { #expect(long == short) } else { #expect(long > short * 5 / 2 && long < short * 4) }

        // Loading plans for one row of 512 tokens unless told otherwise.
        let planned = try #require(model.report.placement?.devices.first).cache
        let session = try model.model.makeSession(SessionRequest(rows: 1, capacity: 512))
        #expect(planned == session.cacheByteCount)
    }

    @Test("a text fed in pieces scores as one fed whole", arguments: [true, false])
    func pieces(allLayers: Bool) throws {
        let model = try model(allLayers: allLayers).model
        // One call: nothing is given back before it ends.
        let whole = try logits(try model.makeSession(SessionRequest(rows: 1, capacity: 400)), Self.text)
        let width = model.vocabularySize
        for step in [1, 7, 100] {
            let session = try model.makeSession(SessionRequest(rows: 1, capacity: 3000))
            for start in stride(from: 0, to: 400, by: step) {
                let end = min(start + step, 400)
                #expect(
                    agree(try logits(session, Self.text[start..<end]), whole[start * width..<end * width]),
                    "\(start), step \(step)")
            }
        }
    }

    @Test("rows of different length, reordered, keep what they see")
    func reordered() throws {
        let model = try model(allLayers: true).model
        let session = try model.makeSession(SessionRequest(rows: 3, capacity: 3000))
        let lengths = [310, 40, 123]
        for (row, length) in lengths.enumerated() { _ = try logits(session, Self.text.prefix(length), row: row) }
        for _ in 0..<20 {
            try session.gather([2, 0, 2])
            try session.gather([1, 0, 2])
        }
        // Rows 0 and 2 stem from the third and the first text by now; whichever it is, its length tells.
        let rows = (0..<3).map { session.length(ofRow: $0) }
        let next = try session.feed(rows.indices.map { RowTokens(row: $0, tokens: [Int32($0 + 5)]) }, logits: .last) {
            Array($0.values)
        }
        for (row, length) in rows.enumerated() {
            let alone = try model.makeSession(SessionRequest(rows: 1, capacity: 400))
            let wanted = try logits(alone, Self.text.prefix(length) + [Int32(row + 5)]).suffix(model.vocabularySize)
            #expect(agree(next[row * model.vocabularySize..<(row + 1) * model.vocabularySize], wanted), "row \(row)")
        }
    }

    @Test("rows can be cut back within the window's reach, and no further")
    func rollback() throws {
        let model = try model(allLayers: true).model
        let session = try model.makeSession(SessionRequest(rows: 1, capacity: 3000))
        for token in Self.text.prefix(300) { _ = try logits(session, [token]) }
        #expect(session.canTruncate(row: 0, to: 300 - 64))
        #expect(session.canTruncate(row: 0, to: 0))
        #expect(!session.canTruncate(row: 0, to: 100))
        #expect(throws: SessionError.cannotTruncate(row: 0, from: 300, to: 100)) { try session.truncate(row: 0, to: 100) }
        try session.truncate(row: 0, to: 240)
        let alone = try model.makeSession(SessionRequest(rows: 1, capacity: 400))
        let wanted = try logits(alone, Self.text.prefix(260)).suffix(20 * model.vocabularySize)
        #expect(agree(try logits(session, Self.text[240..<260]), wanted))
        #expect(try session.rollBack(row: 0, to: 100) == 0)
        #expect(agree(try logits(session, Self.text.prefix(260)).suffix(20 * model.vocabularySize), wanted))
    }

    @Test("beams, drafts and prompt look-up give the ids of a cache that keeps everything", arguments: [true, false])
    func generation(allLayers: Bool) async throws {
        let model = try model(allLayers: allLayers)
        let config = GenerationConfig(maxNewTokens: 150, doSample: false)
        let prompt = Array(Self.text.prefix(90))
        func generate(_ change: (inout GenerationRequest) -> Void) async throws -> [Int32] {
            var request = GenerationRequest(inputs: [prompt], config: config)
            request.config.eosTokenId = []
            change(&request)
            return try await model.generate(request).sequences[0]
        }
        let plain = try await generate { _ in }
        // Every token is the best one after a prefix fed whole.
        let session = try model.model.makeSession(SessionRequest(rows: 1, capacity: 400))
        let all = try logits(session, plain.dropLast())
        let width = model.model.vocabularySize
        for index in 90..<plain.count {
            let row = all[(index - 1) * width..<index * width]
            let best = row.max() ?? 0
            #expect(best - row[row.startIndex + Int(plain[index])] < 1e-4)
        }
        #expect(try await generate { $0.config.promptLookupNumTokens = 100 } == plain)
        #expect(try await generate { $0.assistant = model.model } == plain)
        // Beams are cut short: their truth reads every sequence anew for each token.
        func beams(_ model: any GenerativeModel) throws -> [Int32] {
            var config = GenerationConfig(maxNewTokens: 40, doSample: false, numBeams: 3)
            config.eosTokenId = []
            return try Generator(model: model).generate(inputs: [prompt], config: config).sequences[0]
        }
        let found = try beams(model.model)
        #expect(found == (try beams(RereadingModel(base: model.model))))
        #expect(found.count == 130)
    }
}

/// A model whose sessions keep tokens instead of keys and values, and read all of them for each feed: nothing is ever given
/// back.
final class RereadingModel: GenerativeModel {
    private let base: any GenerativeModel

    init(base: any GenerativeModel) { self.base = base }

    var vocabularySize: Int { base.vocabularySize }
    var isEncoderDecoder: Bool { base.isEncoderDecoder }
    var maximumPositions: Int? { base.maximumPositions }

    func makeSession(_ request: SessionRequest) throws -> any DecodingSession { Session(base, request) }

    private final class Session: DecodingSession {
        private let base: any GenerativeModel
        private var held: [[Int32]]
        let capacity: Int

        init(_ base: any GenerativeModel, _ request: SessionRequest) {
            self.base = base
            capacity = request.capacity
            held = Array(repeating: [], count: request.rows)
        }

        var vocabularySize: Int { base.vocabularySize }
        var rows: Int { held.count }
        func length(ofRow row: Int) -> Int { held[row].count }
        func tokens(ofRow row: Int) -> [Int32] { held[row] }
        func gather(_ sources: [Int]) throws { held = sources.map { held[$0] } }
        func truncate(row: Int, to length: Int) throws { held[row].removeLast(held[row].count - length) }

        func feed<Result>(
            _ inputs: [RowTokens], logits: LogitsSelection, _ body: (LogitsBatch) throws -> Result
        ) throws -> Result {
            var values: [Float] = []
            for input in inputs {
                held[input.row] += input.tokens
                let session = try base.makeSession(SessionRequest(rows: 1, capacity: held[input.row].count))
                let count = logits == .last ? 1 : input.tokens.count
                values += try session.feed([RowTokens(row: 0, tokens: held[input.row])], logits: .all) {
                    Array($0.values.suffix(count * vocabularySize))
                }
            }
            return try values.withUnsafeMutableBufferPointer {
                try body(LogitsBatch(rows: $0.count / vocabularySize, vocabularySize: vocabularySize, values: $0))
            }
        }

        func feed(_ inputs: [RowTokens], sampling: SamplingParameters) throws -> [Int32] {
            try feed(inputs, logits: .last) { batch in
                (0..<batch.rows).map { row in Int32(batch[row].indices.max { batch[row][$0] < batch[row][$1] } ?? 0) }
            }
        }
    }
}
