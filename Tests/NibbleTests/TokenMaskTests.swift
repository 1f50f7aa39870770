import Nibble
import NibbleCore
import NibbleGeneration
import NibbleModels
import NibbleTestSupport
import Testing

/// Repetition penalty and forbidden tokens where the logits are, against the processors on the host.
@Suite struct TokenMaskTests {
    private let stories: (model: PretrainedModel, tokenizer: Tokenizer)

    init() throws { stories = try ExampleModel.stories.get() }

    private static let configs: [GenerationConfig] = {
        var greedy = GenerationConfig(maxNewTokens: 40, doSample: false, repetitionPenalty: 1.3)
        var forbidding = greedy
        forbidding.suppressTokens = [5, 6, 7, 20, 31, 32, 33]
        forbidding.badWordsIds = [[40], [41], [99_999]]
        var sampling = GenerationConfig(
            maxNewTokens: 40, doSample: true, temperature: 0.8, topK: 40, topP: 0.9, repetitionPenalty: 1.2, seed: 3)
        sampling.suppressTokens = [10, 11]
        var several = sampling
        several.numReturnSequences = 3
        greedy.eosTokenId = []
        return [greedy, forbidding, sampling, several]
    }()

    @Test("tokens are those of the processors", arguments: configs.indices)
    func sameTokens(index: Int) async throws {
        var config = Self.configs[index]
        config.badWordsIds = config.badWordsIds?.filter { $0[0] < 4096 }
        let prompts = ["Once upon a time, once upon a time", "The dog"].map { stories.tokenizer.encode($0) }
        let device = try await stories.model.generate(GenerationRequest(inputs: prompts, config: config))
        // Recorded scores are wanted on the host.
        config.outputScores = true
        let host = try await stories.model.generate(GenerationRequest(inputs: prompts, config: config))
        #expect(device.sequences == host.sequences)
        if let forbidden = config.suppressTokens {
            let new = device.sequences.indices.flatMap { Array(device.newTokens(row: $0)) }
            #expect(Set(new).isDisjoint(with: forbidden))
        }
        var free = config
        free.repetitionPenalty = 1
        #expect(try await stories.model.generate(GenerationRequest(inputs: prompts, config: free)).sequences != host.sequences)
    }

    @Test("sets follow rows that are cut, reordered and fed without being asked for")
    func sessions() throws {
        let model = stories.model.model
        var parameters = SamplingParameters.greedy
        parameters.repetitionPenalty = 1.5
        let session = try model.makeSession(SessionRequest(rows: 2, capacity: 100))
        func fresh(_ tokens: [Int32]) throws -> Int32 {
            try model.makeSession(SessionRequest(rows: 1, capacity: 100)).feed(
                [RowTokens(row: 0, tokens: tokens)], sampling: parameters)[0]
        }
        let (first, second): ([Int32], [Int32]) = ([5, 60, 70, 80, 90], [200, 300, 7])
        _ = try session.feed([RowTokens(row: 0, tokens: first), RowTokens(row: 1, tokens: second)], sampling: parameters)
        #expect(try session.feed([RowTokens(row: 0, tokens: [11])], sampling: parameters) == [try fresh(first + [11])])
        try session.truncate(row: 0, to: 3)
        #expect(try session.feed([RowTokens(row: 0, tokens: [12])], sampling: parameters) == [try fresh([5, 60, 70, 12])])
        try session.gather([1, 0])
        #expect(try session.feed([RowTokens(row: 0, tokens: [13])], sampling: parameters) == [try fresh(second + [13])])
        _ = try session.feed([RowTokens(row: 1, tokens: [14, 15])], logits: .last) { $0.rows }
        let both = try session.feed([RowTokens(row: 1, tokens: [16]), RowTokens(row: 0, tokens: [17])], sampling: parameters)
        #expect(both == [try fresh([5, 60, 70, 12, 14, 15, 16]), try fresh(second + [13, 17])])
    }
}
