import Foundation
import Nibble
import NibbleTestSupport
import Testing

/// Conversations on the shipped story model, which answers nonsense, but always the same.
@Suite(.computing) struct ChatSessionTests {
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

    /// Answers, and expects what the whole conversation gives without anything kept, for at most `fed` tokens of the prompt.
    @discardableResult
    private func expectSound(
        _ session: ChatSession, _ text: String, fed: Int, sourceLocation: SourceLocation = #_sourceLocation
    ) async throws -> ChatAnswer {
        let answer = try await session.answer(text) { _ in }
        let system = session.system.map { [ChatMessage(role: "system", content: $0)] } ?? []
        let wanted = try await fresh(system + session.messages.dropLast())
        #expect(wanted == answer.text, sourceLocation: sourceLocation)
        #expect(answer.promptTokens - answer.cachedTokens <= fed, sourceLocation: sourceLocation)
        return answer
    }

    private func count(_ text: String) -> Int { stories.tokenizer.encode(text).count }

    /// Tokens of the template around a message and an answer.
    private let frame = 40

    @Test("a turn reads the new message, however long the conversation is")
    func turns() async throws {
        let session = try session(system: String(repeating: "You tell stories of dogs. ", count: 30))
        try await expectSound(session, "Hello", fed: .max)
        for text in ["And a cat?", "Once upon a time", "Who?", "Why?"] {
            try await expectSound(session, text, fed: count(text) + frame)
        }
        #expect(session.messages.count == 10)
    }

    @Test("a conversation that fills a session goes on in it")
    func growth() async throws {
        let session = try session()
        let long = String(repeating: "Tell me of the dog and the cat. ", count: 100)
        try await expectSound(session, long, fed: .max)
        try await expectSound(session, long, fed: count(long) + frame)
        let last = try await expectSound(session, "And then?", fed: frame + 5)
        // Sessions begin with room for 1,024.
        #expect(last.promptTokens > 1_024)
    }

    @Test("another system text is read, and what follows it")
    func systemChange() async throws {
        let session = try session(system: "You tell stories.")
        try await expectSound(session, "Tell me about a dog.", fed: .max)
        session.system = "Be brief."
        try await expectSound(session, "And a cat?", fed: .max)
        session.system = nil
        try await expectSound(session, "And a bird?", fed: .max)
        try await expectSound(session, "And a fish?", fed: count("And a fish?") + frame)
    }

    @Test("messages may be changed: an answer made again, one edited, the first forgotten")
    func editedHistory() async throws {
        let session = try session(system: "You tell stories.")
        let first = try await expectSound(session, "Tell me about a dog.", fed: .max)
        session.messages.removeLast(2)
        let again = try await expectSound(session, "Tell me about a dog.", fed: 1)
        #expect(again.text == first.text)
        session.messages[1].content = "The dog was in the park."
        try await expectSound(session, "And a cat?", fed: count("The dog was in the park. And a cat?") + frame)
        session.messages.removeFirst(2)
        try await expectSound(session, "And a bird?", fed: .max)
    }

    @Test("a cancelled answer leaves the conversation, and the next one is sound")
    func cancelled() async throws {
        let session = try session()
        try await expectSound(session, "Tell me about a dog.", fed: .max)
        session.generation.maxNewTokens = 100_000
        let before = session.messages
        struct Box: @unchecked Sendable { let session: ChatSession }
        let box = Box(session: session)
        let task = Task {
            _ = try await box.session.answer("And a cat?") { _ in withUnsafeCurrentTask { $0?.cancel() } }
        }
        await #expect(throws: CancellationError.self) { try await task.value }
        #expect(session.messages == before)
        session.generation = config
        try await expectSound(session, "And a cat?", fed: count("And a cat?") + frame)
    }

    @Test("a chat that does not fit leaves the conversation as it was")
    func failure() async throws {
        let session = try session()
        session.generation.maxNewTokens = nil
        session.generation.maxLength = 4
        await #expect(throws: GenerationError.self) { try await session.answer("Tell me a long story about a dog.") { _ in } }
        #expect(session.messages.isEmpty)
        session.generation = config
        try await expectSound(session, "Hello", fed: .max)
        session.generation.maxNewTokens = nil
        session.generation.maxLength = 30
        await #expect(throws: GenerationError.self) { try await session.answer("Tell me a long story about a dog.") { _ in } }
        #expect(session.messages.count == 2)
        session.generation = config
        try await expectSound(session, "And then?", fed: count("And then?") + frame)
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
