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

    @Argument(help: "A model folder, a GGUF file, or owner/name on the Hub.", completion: .file())
    var model: String

    @Argument(help: "One or several prompts. An empty one lets the model begin from its start token.")
    var prompts: [String] = []

    @Option(help: "A file with one prompt a line.", completion: .file())
    var promptFile: String?

    @Option(
        name: .customLong("input-ids"),
        help: "A JSON file {\"input_ids\": [[…]], \"attention_mask\": [[…]]} in place of prompts.",
        completion: .file(extensions: ["json"])
    )
    var inputIDs: String?

    @Flag(help: "Print one JSON object a returned sequence.")
    var json = false

    @Flag(help: "Each prompt is a user's message: the chat template is put around it, and only the answer is printed.")
    var chat = false

    @Option(help: "With --chat: what the model is told before the message.")
    var system: String?

    @Option(
        help: "A smaller model with the same vocabulary that drafts tokens, which MODEL checks (one prompt, no beams).",
        completion: .file())
    var assistant: String?

    @Option(help: "With --guidance-scale: a text to be guided away from.")
    var negativePrompt: String?

    @Option(help: "Translation models: the language of the prompts, such as eng_Latn (NLLB), en (M2M100) or en_XX (mBART).")
    var srcLang: String?

    @Option(help: "Translation models: the language of the answers, such as kor_Hang, ko or ko_KR.")
    var tgtLang: String?

    @OptionGroup(title: "Structured output")
    var grammar: GrammarOptionsGroup

    @OptionGroup(title: "Chat options")
    var chatOptions: ChatOptionsGroup

    @OptionGroup(title: "Generation options")
    var generation: GenerationOptionsGroup

    @OptionGroup(title: "Adapters")
    var adapters: AdapterOptionsGroup

    @OptionGroup(title: "Load options")
    var load: LoadOptionsGroup

    func validate() throws {
        let sources = [!prompts.isEmpty, promptFile != nil, inputIDs != nil].filter(\.self).count
        guard sources == 1 else {
            throw ValidationError(
                sources == 0
                    ? "a prompt is needed: as an argument, with --prompt-file or --input-ids"
                    : "give only one of: prompts, --prompt-file, --input-ids")
        }
        if inputIDs != nil, srcLang != nil { throw ValidationError("--src-lang needs texts, not --input-ids") }
        if chat, inputIDs != nil { throw ValidationError("--chat needs texts, not --input-ids") }
        if !chat, system != nil || chatOptions.chatTemplate != nil {
            throw ValidationError("--system and --chat-template need --chat")
        }
    }

    /// Prompts that are generated side by side.
    private var batchSize: Int { load.batchSize ?? 8 }

    func run() async throws {
        let inputs = try await prepare()
        let pretrained = try PretrainedModel.load(folder: inputs.folder, inputs.loading)
        Report.show(pretrained.report, quiet: load.quiet)
        try PromptCheck.check(inputs.rows, pretrained, inputs.tokenizer)
        var request = GenerationRequest(config: inputs.config)
        request.grammar = inputs.grammar
        request.assistant = try await load.draftModel(assistant)?.model
        request.negativePrompt = inputs.negativePrompt.map { [$0] }
        if chat, let tokenizer = inputs.tokenizer {
            request.config = withAnswerLength(request.config, inputs.rows, pretrained, tokenizer)
        }

        var statistics = GenerationStatistics()
        if inputs.canStream(json: json), let tokenizer = inputs.tokenizer {
            let opening = pretrained.isEncoderDecoder || chat ? "" : inputs.texts.first ?? ""
            try await stream(inputs.rows, request, opening: opening, pretrained, tokenizer, &statistics)
        } else {
            try await generateBatches(inputs.rows, request, pretrained, inputs.tokenizer, &statistics)
        }
        if !load.quiet { Console.error(statistics.line) }
    }

    /// One prompt: text appears as it is made, behind `opening`.
    private func stream(
        _ rows: BatchEncoding, _ request: GenerationRequest, opening: String, _ pretrained: PretrainedModel,
        _ tokenizer: Tokenizer, _ statistics: inout GenerationStatistics
    ) async throws {
        var request = request
        request.inputs = rows.inputIDs
        request.attentionMask = rows.attentionMask
        var decoder = TokenStreamDecoder(tokenizer, skipSpecialTokens: true)
        // Shown with the first token: an error before it leaves nothing half-written.
        var opening = opening
        var warnings: [GenerationWarning] = []
        statistics.begin(promptTokens: rows.inputIDs.reduce(0) { $0 + $1.count })
        for try await event in pretrained.generator(tokenizer: tokenizer).stream(request) {
            switch event {
            case .token(let token):
                statistics.token()
                Console.output(opening + decoder.push(token.id), newline: false)
                opening = ""
                try Console.checkOutput()
            case .finished(let output): warnings = output.warnings
            }
        }
        Console.output(decoder.finish())
        statistics.end()
        showWarnings(warnings)
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
            showWarnings(output.warnings)
            statistics.tokens(output.newTokenCounts.reduce(0, +))
            for (row, sequence) in output.sequences.enumerated() {
                show(sequence, promptLength: output.promptLength, score: output.sequencesScores?[row], tokenizer)
            }
            try Console.checkOutput()
        }
        statistics.end()
    }

    private func showWarnings(_ warnings: [GenerationWarning]) {
        guard !load.quiet else { return }
        for warning in warnings { Console.error("warning: \(OptionNames.onCommandLine("\(warning)"))") }
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
