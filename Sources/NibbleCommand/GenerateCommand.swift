import ArgumentParser
import Foundation
import Nibble
import NibbleCore
import NibbleTokenizers

struct GenerateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "generate",
        abstract: "Continue prompts, or answer them with an encoder-decoder.",
        discussion: """
            Text streams to standard output as it is made. With --json, one object a returned sequence: \
            {"output_ids": […], "text": "…", "score": …}.

            Example: nibble generate Models/bloom-stories --load-in-4bit --max-new-tokens 150 --temperature 0.7 "Once upon a time"
            """)

    @Argument(help: "A model folder, a GGUF file, or owner/name on the Hub.")
    var model: String

    @Argument(help: "One or several prompts.")
    var prompts: [String] = []

    @Option(help: "A file with one prompt a line.")
    var promptFile: String?

    @Option(
        name: .customLong("input-ids"), help: "A JSON file {\"input_ids\": [[…]], \"attention_mask\": [[…]]} in place of prompts."
    )
    var inputIDs: String?

    @Flag(help: "Print one JSON object a returned sequence.")
    var json = false

    @Flag(help: "Each prompt is a user's message: the chat template is put around it, and only the answer is printed.")
    var chat = false

    @Option(help: "With --chat: what the model is told before the message.")
    var system: String?

    @Option(help: "A smaller model with the same vocabulary that drafts tokens for this one to check (one prompt, no beams).")
    var assistant: String?

    @Option(help: "With --guidance-scale: a text to be guided away from.")
    var negativePrompt: String?

    @OptionGroup(title: "Chat options")
    var chatOptions: ChatOptionsGroup

    @OptionGroup(title: "Generation options")
    var generation: GenerationOptionsGroup

    @OptionGroup(title: "Load options")
    var load: LoadOptionsGroup

    func validate() throws {
        let sources = [!prompts.isEmpty, promptFile != nil, inputIDs != nil].filter(\.self).count
        guard sources == 1 else {
            throw ValidationError(
                sources == 0
                    ? "a prompt is needed: as an argument, with --prompt-file or --input-ids"
                    : "prompts, --prompt-file and --input-ids exclude each other")
        }
        if chat, inputIDs != nil { throw ValidationError("--chat needs texts, not --input-ids") }
        if !chat, system != nil || chatOptions.chatTemplate != nil {
            throw ValidationError("--system and --chat-template need --chat")
        }
    }

    /// Prompts that are generated side by side.
    private var batchSize: Int { load.batchSize ?? 8 }

    func run() async throws {
        var config = try generation.config()
        let prompts = try promptTexts()
        let configuration = try load.configuration()
        let folder = try await PretrainedFiles.folder(for: model, .all, configuration)
        // Ids can be generated without a tokenizer; text cannot.
        let tokenizer = inputIDs == nil ? try AutoTokenizer.from(model: folder) : try? AutoTokenizer.from(model: folder)
        if let ids = tokenizer.flatMap({ generation.rarer.badWordsIds($0) }) { config.badWordsIds = ids }
        let pretrained = try PretrainedModel.load(folder: folder, configuration)
        Report.show(pretrained.report, quiet: load.quiet)
        let rows = try inputs(prompts, tokenizer)
        try PromptCheck.check(rows, pretrained, tokenizer)
        var request = GenerationRequest(config: config)
        request.assistant = try await load.draftModel(assistant)?.model
        if let negativePrompt, let tokenizer { request.negativePrompt = [tokenizer.encode(negativePrompt)] }

        var statistics = GenerationStatistics()
        if !json, rows.inputIDs.count == 1, (config.numBeams ?? 1) == 1, (config.numReturnSequences ?? 1) == 1, let tokenizer {
            try await stream(rows, request, prompt: prompts.first ?? "", pretrained, tokenizer, &statistics)
        } else {
            try await generateBatches(rows, request, pretrained, tokenizer, &statistics)
        }
        if !load.quiet { Console.error(statistics.line) }
    }

    private func promptTexts() throws -> [String] {
        guard let promptFile else { return prompts }
        let text = try TextFile.read(promptFile)
        return text.textLines.map(String.init).filter { !$0.isEmpty }
    }

    private func inputs(_ prompts: [String], _ tokenizer: Tokenizer?) throws -> BatchEncoding {
        if let inputIDs { return try TokenIDFile.read(inputIDs) }
        guard let tokenizer else { return BatchEncoding(inputIDs: [], attentionMask: []) }
        guard chat else { return try tokenizer(prompts) }
        let opening = system.map { [ChatMessage(role: "system", content: $0)] } ?? []
        let template = try chatOptions.template()
        let rows = try prompts.map { prompt in
            try tokenizer.applyChatTemplate(
                messages: opening + [ChatMessage(role: "user", content: prompt)], template: template, addGenerationPrompt: true
            ).inputIDs
        }
        return BatchEncoding(inputIDs: rows, attentionMask: rows.map { $0.map { _ in 1 } })
    }

    /// One prompt: text appears as it is made. A decoder's prompt is repeated in front of what it adds, but not a chat's.
    private func stream(
        _ rows: BatchEncoding, _ request: GenerationRequest, prompt: String, _ pretrained: PretrainedModel,
        _ tokenizer: Tokenizer, _ statistics: inout GenerationStatistics
    ) async throws {
        var request = request
        request.inputs = rows.inputIDs
        request.attentionMask = rows.attentionMask
        var decoder = TokenStreamDecoder(tokenizer, skipSpecialTokens: true)
        if !pretrained.isEncoderDecoder, !chat { Console.output(prompt, newline: false) }
        statistics.begin(promptTokens: rows.inputIDs.reduce(0) { $0 + $1.count })
        for try await event in pretrained.generator(tokenizer: tokenizer).stream(request) {
            switch event {
            case .token(let token):
                statistics.token()
                Console.output(decoder.push(token.id), newline: false)
            case .finished(let output):
                for warning in output.warnings where !load.quiet { Console.error("warning: \(warning)") }
            }
        }
        Console.output(decoder.finish())
        statistics.end()
    }

    private func generateBatches(
        _ rows: BatchEncoding, _ common: GenerationRequest, _ pretrained: PretrainedModel, _ tokenizer: Tokenizer?,
        _ statistics: inout GenerationStatistics
    ) async throws {
        // Ids are one batch, as generate() would see them; texts are cut into batches and padded on the left.
        let size = inputIDs == nil ? batchSize : max(rows.inputIDs.count, 1)
        statistics.begin(promptTokens: rows.inputIDs.reduce(0) { $0 + $1.count })
        for start in stride(from: 0, to: rows.inputIDs.count, by: size) {
            let range = start..<min(start + size, rows.inputIDs.count)
            var request = common
            request.inputs = Array(rows.inputIDs[range])
            request.negativePrompt = common.negativePrompt.map { prompt in range.flatMap { _ in prompt } }
            if inputIDs == nil {
                // Unpadded rows of several lengths carry no mask: generation pads them on the left itself.
                request.attentionMask = range.count == 1 ? Array(rows.attentionMask[range]) : nil
            } else if !rows.attentionMask.isEmpty {
                request.attentionMask = rows.attentionMask
            }
            let output = try await pretrained.generate(request, tokenizer: tokenizer)
            for warning in output.warnings where !load.quiet { Console.error("warning: \(warning)") }
            statistics.tokens(output.newTokenCounts.reduce(0, +))
            for (row, sequence) in output.sequences.enumerated() {
                show(sequence, promptLength: output.promptLength, score: output.sequencesScores?[row], tokenizer)
            }
        }
        statistics.end()
    }

    private func show(_ sequence: [Int32], promptLength: Int, score: Float?, _ tokenizer: Tokenizer?) {
        let shown = chat && !json ? Array(sequence[promptLength...]) : sequence
        let text = tokenizer?.decode(shown, skipSpecialTokens: true)
        guard json else { return Console.output(text ?? sequence.map(String.init).joined(separator: " ")) }
        var members: [(String, JSONValue)] = [("output_ids", .ids(sequence))]
        if let text { members.append(("text", .string(text))) }
        if let score { members.append(("score", .double(Double(score)))) }
        Console.output(JSONValue.object(JSONObject(members)).encoded(.compact))
    }
}
