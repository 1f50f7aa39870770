import NibbleCore
import NibbleGeneration
package import NibbleModels

extension Benchmark {
    /// The speed of one way of continuing a text: greedily, or with drafted tokens that are checked several at a time.
    package struct AssistedResult: Sendable {
        /// `greedy`, `prompt look-up` or `assistant`
        package var name: String
        package var newTokens: Int
        /// Tokens a second after the first token, in the fastest repetition.
        package var tokensPerSecond: Double
        /// Runs of the model after the prompt.
        package var forwards: Int
        /// Whether the tokens are those of greedy decoding.
        package var sameTokens: Bool
    }

    /// Continues `prompt` greedily, then with prompt look-up of `lookup` tokens, then with the assistant if one is given.
    ///
    /// - Throws: `GenerationError`; what the models throw.
    package func assisted(
        _ prompt: [Int32], newTokens: Int, lookup: Int, assistant: (any GenerativeModel)? = nil
    ) throws -> [AssistedResult] {
        var request = GenerationRequest(inputs: [prompt], config: GenerationConfig(maxNewTokens: newTokens, doSample: false))
        request.config.eosTokenId = []
        var (tokens, results) = ([Int32](), [AssistedResult]())
        func run(_ name: String) throws {
            let (rate, forwards, made) = try best(request)
            if tokens.isEmpty { tokens = made }
            results.append(
                AssistedResult(
                    name: name, newTokens: newTokens, tokensPerSecond: rate, forwards: forwards, sameTokens: made == tokens))
        }
        try run("greedy")
        request.config.promptLookupNumTokens = lookup
        try run("prompt look-up")
        request.config.promptLookupNumTokens = nil
        if let assistant {
            request.assistant = assistant
            try run("assistant")
        }
        return results
    }

    private func best(_ request: GenerationRequest) throws -> (rate: Double, forwards: Int, tokens: [Int32]) {
        var (rate, forwards, tokens) = (0.0, 0, [Int32]())
        for repetition in 0...repetitions {
            var first: ContinuousClock.Instant?
            let output = try pretrained.generator().generate(request) { _ in if first == nil { first = .now } }
            guard let first else { continue }
            let seconds = (ContinuousClock.now - first) / .seconds(1)
            tokens = Array(output.newTokens(row: 0))
            forwards = output.modelRuns - 1
            // The first run warms caches and captures graphs.
            if repetition > 0, seconds > 0 { rate = max(rate, Double(tokens.count - 1) / seconds) }
        }
        return (rate, forwards, tokens)
    }
}
