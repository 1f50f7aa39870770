import NibbleCore
import NibbleGeneration
import NibbleModels
import Testing

/// A model that says what it is told to: the token at the row's length.
final class ScriptModel: GenerativeModel {
    let script: [Int32]
    let vocabularySize: Int
    let isEncoderDecoder = false
    let maximumPositions: Int? = nil

    init(_ script: [Int32], vocabularySize: Int) {
        self.script = script
        self.vocabularySize = vocabularySize
    }

    func makeSession(_ request: SessionRequest) throws -> any DecodingSession { ScriptSession(self, request) }
}

private final class ScriptSession: DecodingSession {
    let model: ScriptModel
    let request: SessionRequest
    var held: [[Int32]]

    init(_ model: ScriptModel, _ request: SessionRequest) {
        self.model = model
        self.request = request
        held = Array(repeating: [], count: request.rows)
    }

    var vocabularySize: Int { model.vocabularySize }
    var rows: Int { request.rows }
    var capacity: Int { request.capacity }
    func length(ofRow row: Int) -> Int { held[row].count }
    func tokens(ofRow row: Int) -> [Int32] { held[row] }

    private func next(_ input: RowTokens) -> Int32 {
        held[input.row] += input.tokens
        return model.script[held[input.row].count % model.script.count]
    }

    func feed<Result>(
        _ inputs: [RowTokens], logits: LogitsSelection, _ body: (LogitsBatch) throws -> Result
    ) throws -> Result {
        var values = [Float](repeating: 0, count: inputs.count * vocabularySize)
        for (index, input) in inputs.enumerated() { values[index * vocabularySize + Int(next(input))] = 9 }
        return try values.withUnsafeMutableBufferPointer {
            try body(LogitsBatch(rows: inputs.count, vocabularySize: vocabularySize, values: $0))
        }
    }

    func feed(_ inputs: [RowTokens], sampling: SamplingParameters) throws -> [Int32] { inputs.map(next) }
    func gather(_ sources: [Int]) throws { held = sources.map { held[$0] } }
    func truncate(row: Int, to length: Int) throws { held[row].removeLast(held[row].count - length) }
}

@Suite struct StopStringTests {
    /// Generates the tokens of `pieces` behind a prompt of the first `prompt` of them.
    private func run(_ pieces: [[UInt8]], prompt: Int = 1, stop: [String]) throws -> (new: Int, reason: FinishReason?) {
        let model = ScriptModel(pieces.indices.map(Int32.init), vocabularySize: pieces.count)
        let generator = Generator(model: model, tokenBytes: { pieces[Int($0)] })
        let output = try generator.generate(
            inputs: [pieces.indices.prefix(prompt).map(Int32.init)],
            config: config(new: pieces.count - prompt) { $0.stopStrings = stop })
        return (output.newTokenCounts[0], output.finishReasons[0] ?? nil)
    }

    private func run(_ pieces: [String], prompt: Int = 1, stop: [String]) throws -> (new: Int, reason: FinishReason?) {
        try run(pieces.map { Array($0.utf8) }, prompt: prompt, stop: stop)
    }

    @Test("A string within a token ends the row; the token stays whole")
    func withinToken() throws {
        let result = try run(["x", "a", "bENDb", "c", "d"], stop: ["END"])
        #expect(result.new == 2 && result.reason == .stopString("END"))
    }

    @Test("A string may begin in an earlier token, and in the prompt")
    func acrossTokens() throws {
        #expect(try run(["x", "aE", "N", "Db", "c"], stop: ["END"]).new == 3)
        #expect(try run(["xEN", "Da", "c"], stop: ["END"]).new == 1)
        #expect(try run(["x", "E", "N", "ND", "c", "d"], stop: ["END"]).new == 5)
    }

    @Test("What ended before the last token does not count")
    func endedBefore() throws {
        #expect(try run(["aENDb", "c", "d"], stop: ["END"]).new == 2)
        #expect(try run(["x", "a", "b", "c"], stop: ["xa"]).new == 1)
        #expect(try run(["xa", "b", "c"], stop: ["xa"]).new == 2)
    }

    @Test("A string may end in the middle of a token that goes on, twice over")
    func inTheMiddle() throws {
        #expect(try run(["x", "a", "aab", "c"], stop: ["aa"]).new == 2)
        #expect(try run(["x", "\n\n\n", "c", "d"], stop: ["\n\n"]).new == 1)
    }

    @Test("Characters are compared by their bytes, even split between tokens")
    func bytes() throws {
        let euro = Array("€".utf8)
        #expect(try run([[120], [euro[0]], [euro[1]], [euro[2], 97], [98]], stop: ["€"]).new == 3)
        #expect(try run(["x", "e\u{301}", "c"], stop: ["é"]).new == 2)
    }

    @Test("Tokens without text match nothing, but are among those that are looked at")
    func emptyTokens() throws {
        #expect(try run(["x", "E", "", "ND", "q", "r"], stop: ["END"]).new == 3)
        #expect(try run(["x", "E", "", "", "ND", "r"], stop: ["END"]).new == 5)
        #expect(try run(["END", "", "q"], stop: ["END"]).new == 2)
    }

    @Test("The first string in the order given is named")
    func severalStrings() throws {
        #expect(try run(["x", "ab", "c"], stop: ["b", "ab"]).reason == .stopString("b"))
        #expect(try run(["x", "ab", "c"], stop: ["zzz", "ab"]).reason == .stopString("ab"))
    }

    @Test("Without a tokenizer stop strings are refused")
    func withoutTokenizer() {
        #expect(throws: GenerationError.self) {
            try Generator(model: HashModel()).generate(inputs: [[1]], config: config(new: 2) { $0.stopStrings = ["a"] })
        }
    }
}
