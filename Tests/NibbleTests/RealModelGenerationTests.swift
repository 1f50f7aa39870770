import Foundation
import Nibble
import NibbleGeneration
import NibbleTestSupport
import Testing

/// Generation on the shipped story model: what a model that computes can show and a scripted one cannot.
@Suite struct RealModelGenerationTests {
    private let stories: (model: PretrainedModel, tokenizer: Tokenizer)

    init() throws { stories = try ExampleModel.stories.get() }

    private func request(_ text: String, _ config: GenerationConfig) -> GenerationRequest {
        GenerationRequest(inputs: [stories.tokenizer.encode(text)], config: config)
    }

    @Test("leaving a stream in the middle leaves the model usable")
    func cancelledStream() async throws {
        let config = GenerationConfig(maxNewTokens: 40, doSample: false)
        let whole = try await stories.model.generate(request("Once upon a time", config))
        for taken in [1, 5, 20] {
            var tokens: [Int32] = []
            for try await event in stories.model.generator().stream(request("Once upon a time", config)) {
                if case .token(let token) = event { tokens.append(token.id) }
                if tokens.count == taken { break }
            }
            #expect(tokens == Array(whole.newTokens(row: 0).prefix(taken)))
        }
        #expect(try await stories.model.generate(request("Once upon a time", config)).sequences == whole.sequences)
    }

    @Test("a cancelled task ends its generation and no other")
    func cancelledTask() async throws {
        let config = GenerationConfig(maxNewTokens: 400, doSample: true, seed: 1)
        let (model, request) = (stories.model, request("Once upon a time", config))
        let task = Task {
            var count = 0
            for try await _ in model.generator().stream(request) {
                count += 1
                if count == 3 { withUnsafeCurrentTask { $0?.cancel() } }
            }
            return count
        }
        let other = try await model.generate(request)
        // The stream ends at the next event, or throws.
        switch await task.result {
        case .success(let count): #expect((3...4).contains(count))
        case .failure(let error): #expect(error is CancellationError)
        }
        #expect(try await model.generate(request).sequences == other.sequences)
    }

    @Test("equal seeds give equal texts, other seeds others", arguments: [1, 3])
    func seeds(sequences: Int) async throws {
        func generate(_ seed: UInt64) async throws -> [[Int32]] {
            try await stories.model.generate(
                request(
                    "The dog",
                    GenerationConfig(
                        maxNewTokens: 30, doSample: true, temperature: 0.9, topP: 0.95, numReturnSequences: sequences, seed: seed)
                )
            ).sequences
        }
        let first = try await generate(11)
        #expect(try await generate(11) == first)
        #expect(try await generate(12) != first)
        #expect(Set(first).count == sequences)
    }

    @Test(
        "a drafting model and prompt look-up change nothing but the way",
        arguments: ["Once upon a time", "The dog and the cat. The dog and"])
    func assisted(text: String) async throws {
        let config = GenerationConfig(maxNewTokens: 48, doSample: false)
        let plain = try await stories.model.generate(request(text, config)).sequences
        let draft = try PretrainedModel.load(
            folder: stories.model.folder,
            {
                var configuration = LoadConfiguration()
                configuration.dtype = .float32
                configuration.quantization = BitsAndBytesConfig(loadIn4Bit: true)
                return configuration
            }())
        var assisted = request(text, config)
        assisted.assistant = draft.model
        #expect(try await stories.model.generate(assisted).sequences == plain)
        var lookup = request(text, config)
        lookup.config.promptLookupNumTokens = 8
        #expect(try await stories.model.generate(lookup).sequences == plain)
    }
}
