import Nibble
import Synchronization
import Testing

/// What a program does that imports nothing but Nibble. The target sees no `package` declarations.
struct FacadeTests {
    private static let folder = PublicSurfaceTests.repository.appending(path: "Models/bloom-stories").path

    private static func load() async throws -> (PretrainedModel, Tokenizer) {
        let model = try await AutoModelForCausalLM.from(
            pretrained: folder, deviceMap: .device(.cpu),
            quantization: BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4))
        return (model, try await AutoTokenizer.from(pretrained: folder))
    }

    @Test("all types can be named")
    func types() { #expect(Set(Vocabulary.types.map(ObjectIdentifier.init)).count == Vocabulary.types.count) }

    @Test("errors are caught by name", arguments: Vocabulary.errors)
    func errors(error: any Error) { #expect(Vocabulary.name(catching: error) == "\(type(of: error))") }

    @Test("what goes wrong arrives under its name")
    func thrown() async throws {
        await #expect(throws: AutoModelError.self) { try await AutoModel.from(pretrained: "/nowhere/at all") }
        await #expect(throws: QuantizationConfigError.bothLoads) {
            try await AutoModel.from(
                pretrained: Self.folder, quantization: BitsAndBytesConfig(loadIn8Bit: true, loadIn4Bit: true))
        }
        await #expect(throws: MemoryLimitError.self) {
            try await AutoModel.from(pretrained: Self.folder, maxMemory: [.cpu: "much"])
        }
        let (model, tokenizer) = try await Self.load()
        await #expect(throws: GenerationError.self) {
            try await model.generate(tokenizer("Once"), GenerationConfig(maxNewTokens: 4, doSample: true, temperature: -1))
        }
        #expect(throws: ChatTemplateError.noTemplate) {
            try tokenizer.applyChatTemplate(messages: [ChatMessage(role: "user", content: "Hello")])
        }
        #expect(throws: JinjaError.self) {
            try tokenizer.applyChatTemplate(
                messages: [ChatMessage(role: "user", content: "Hello")], template: "{{ unfinished")
        }
    }

    @Test("streamed text is the generated text")
    func stream() async throws {
        let (model, tokenizer) = try await Self.load()
        let inputs = try tokenizer("Once upon a time")
        for beams in [1, 2] {
            let config = GenerationConfig(maxNewTokens: 24, doSample: false, numBeams: beams)
            let output = try await model.generate(inputs, config)
            var pieces = [String]()
            for try await text in model.stream(inputs, config, tokenizer: tokenizer) { pieces.append(text) }
            #expect(pieces.joined() == tokenizer.decode(Array(output.newTokens(row: 0)), skipSpecialTokens: true))
            #expect(beams == 1 ? pieces.count > 4 : pieces.count == 1)
        }
    }

    @Test("a stream of text refuses several sequences")
    func streamOfRows() async throws {
        let (model, tokenizer) = try await Self.load()
        let several = GenerationConfig(maxNewTokens: 2, doSample: true, numReturnSequences: 2)
        for (inputs, config) in [
            (try tokenizer(["Once", "Then"]), GenerationConfig(maxNewTokens: 2)), (try tokenizer("Once"), several),
        ] {
            await #expect(throws: GenerationError.self) {
                for try await _ in model.stream(inputs, config, tokenizer: tokenizer) {}
            }
        }
    }

    @Test("the events of a request end with its output")
    func events() async throws {
        let (model, tokenizer) = try await Self.load()
        var request = GenerationRequest(inputs: try tokenizer("Once upon a time").inputIDs)
        request.config.maxNewTokens = 8
        request.logProbabilities = true
        var tokens = [GeneratedToken]()
        for try await event in model.stream(request, tokenizer: tokenizer) {
            switch event {
            case .token(let token): tokens.append(token)
            case .finished(let output): #expect(tokens.map(\.id) == Array(output.newTokens(row: 0)))
            }
        }
        #expect(tokens.map(\.step) == Array(0..<tokens.count))
        #expect(tokens.allSatisfy { ($0.logProbability ?? 1) <= 0 })
    }

    @Test("a program's own processor and criterion take part")
    func extensions() async throws {
        let (model, tokenizer) = try await Self.load()
        var request = GenerationRequest(inputs: try tokenizer("Once upon a time").inputIDs)
        request.config = GenerationConfig(maxNewTokens: 16, doSample: false)
        request.processors = [Only(token: 7)]
        request.stopping = [{ context in context.ids.count - context.promptLength >= 3 }]
        let output = try await model.generate(request)
        #expect(output.newTokens(row: 0) == [7, 7, 7])
        #expect(output.finishReasons == [.stoppingCriterion])
    }

    @Test("the model itself drafts for itself")
    func assistant() async throws {
        let (model, tokenizer) = try await Self.load()
        let inputs = try tokenizer("Once upon a time")
        let config = GenerationConfig(maxNewTokens: 12, doSample: false)
        let output = try await model.generate(inputs, config, assistant: model)
        #expect(output.sequences == (try await model.generate(inputs, config)).sequences)
    }

    @Test("a plan is made without loading")
    func plan() async throws {
        var configuration = LoadConfiguration()
        configuration.maxMemory = [.cuda(0): "1GB"]
        let preview = try LoadPreview(folder: try await AutoModel.download(Self.folder), configuration)
        #expect(preview.placement.deviceMap.devices == [.cuda(0)])
        #expect(preview.placement.devices.first?.budget == 1_000_000_000)
    }
}

/// Allows one token.
private struct Only: LogitsProcessor {
    let token: Int

    func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        for index in scores.indices where index != token { scores[index] = -.infinity }
    }
}
