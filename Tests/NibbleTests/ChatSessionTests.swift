import Foundation
import Nibble
import NibbleTestSupport
import Testing

/// Conversations on the shipped story model, which answers nonsense, but always the same.
@Suite struct ChatSessionTests {
    private let stories: (model: PretrainedModel, tokenizer: Tokenizer)
    private let config = GenerationConfig(maxNewTokens: 12, doSample: false)

    init() throws { stories = try ExampleModel.stories.get() }

    private func session(system: String? = nil) throws -> ChatSession {
        try ChatSession(
            model: stories.model, tokenizer: stories.tokenizer, system: system, template: ExampleModel.chatTemplate,
            generation: config)
    }

    /// The answer to the whole conversation without anything kept.
    private func fresh(_ messages: [ChatMessage]) async throws -> String {
        let prompt = try stories.tokenizer.applyChatTemplate(
            messages: messages, template: ExampleModel.chatTemplate, addGenerationPrompt: true)
        let output = try await stories.model.generate(BatchEncoding(inputIDs: [prompt.inputIDs], attentionMask: []), config)
        return stories.tokenizer.decode(Array(output.newTokens(row: 0)), skipSpecialTokens: true)
    }

    @Test("answers are those of the whole conversation, whatever the cache holds")
    func conversation() async throws {
        let session = try session(system: "You tell stories.")
        var messages = [ChatMessage(role: "system", content: "You tell stories.")]
        var known = 0
        for text in ["Tell me about a dog.", "And a cat?", "Once upon a time"] {
            messages.append(ChatMessage(role: "user", content: text))
            var streamed = ""
            let answer = try await session.answer(text) { streamed += $0 }
            #expect(answer.text == streamed)
            // All of the last prompt but what its end may have merged with.
            #expect(answer.cachedTokens >= max(known - 1, 0) && answer.cachedTokens < answer.promptTokens)
            known = answer.promptTokens
            #expect(try await fresh(messages) == answer.text)
            messages.append(ChatMessage(role: "assistant", content: answer.text))
        }
        #expect(session.messages == Array(messages.dropFirst()))
        session.reset()
        let again = try await session.answer("Tell me about a dog.") { _ in }
        #expect(again.text == messages[2].content.text)
    }

    @Test("a stopped answer is kept as far as it came, and the next one is sound")
    func stopping() async throws {
        let session = try session()
        let pieces = Counter()
        let answer = try await session.answer("Tell me about a dog.", shouldStop: { pieces.next() == 3 }, onText: { _ in })
        #expect(answer.newTokens == 3)
        #expect(answer.finishReason == .stoppingCriterion)
        #expect(session.messages.count == 2)
        let next = try await session.answer("And a cat?") { _ in }
        #expect(try await fresh(Array(session.messages.dropLast())) == next.text)
    }

    @Test("a chat that does not fit leaves the conversation as it was")
    func failure() async throws {
        let session = try session()
        session.generation.maxNewTokens = nil
        session.generation.maxLength = 4
        await #expect(throws: GenerationError.self) { try await session.answer("Tell me a long story about a dog.") { _ in } }
        #expect(session.messages.isEmpty)
        session.generation = config
        let answer = try await session.answer("Hello") { _ in }
        #expect(!answer.text.isEmpty)
    }

    @Test("without a template there is no chat")
    func noTemplate() throws {
        #expect(throws: ChatTemplateError.noTemplate) {
            try ChatSession(model: stories.model, tokenizer: stories.tokenizer)
        }
    }
}

/// Counts calls, from 1.
private final class Counter: @unchecked Sendable {
    private var count = 0
    func next() -> Int {
        count += 1
        return count
    }
}

extension JinjaValue {
    fileprivate var text: String? {
        if case .string(let text) = self { return text }
        return nil
    }
}
