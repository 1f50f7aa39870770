import ArgumentParser
import Foundation
import Nibble

struct ChatCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "chat",
        abstract: "Talk with a model in the terminal.",
        discussion: """
            Answers stream as they are made; the model sees the whole conversation. Ctrl-C stops an answer, Ctrl-D or /exit \
            ends. /help lists the commands; /set changes options. Answers are sampled at temperature 0.7 and top-p 0.9 where \
            neither options nor the model's generation_config.json say otherwise; --do-sample false or --temperature 0 always \
            takes the most likely token. Where standard input is no terminal, each of its lines is a message, and only answers \
            are printed.
            """)

    @Argument(help: "A model folder, a GGUF file, or owner/name on the Hub.")
    var model: String

    @Option(help: "What the model is told before all messages.")
    var system: String?

    @OptionGroup(title: "Structured output")
    var grammar: GrammarOptionsGroup

    @OptionGroup(title: "Chat options")
    var chat: ChatOptionsGroup

    @OptionGroup(title: "Generation options")
    var generation: GenerationOptionsGroup

    @OptionGroup(title: "Load options")
    var load: LoadOptionsGroup

    func validate() throws {
        if (generation.numBeams ?? 1) > 1 || (generation.numReturnSequences ?? 1) > 1 {
            throw ValidationError("a chat answers with one sequence: --num-beams and --num-return-sequences cannot be used")
        }
    }

    func run() async throws {
        var config = try generation.config(isGreedyByDefault: false)
        let template = try chat.template()
        let compiled = try grammar.compiled()
        let loading = try load.configuration()
        let folder = try await PretrainedFiles.folder(for: model, .all, loading)
        let tokenizer = try AutoTokenizer.from(model: folder)
        try tokenizer.checkChatTemplate(template)
        if let ids = generation.rarer.badWordsIds(tokenizer) { config.badWordsIds = ids }
        let modelConfig = try PretrainedModel.generationConfig(of: folder)
        try ChatSession.resolved(config, model: modelConfig).validate()

        let pretrained = try PretrainedModel.load(folder: folder, loading)
        Report.show(pretrained.report, quiet: load.quiet)
        let session = try ChatSession(
            model: pretrained, tokenizer: tokenizer, system: system, template: template, generation: config)
        session.grammar = compiled
        let settings = ChatSettings(config, model: modelConfig, tokenizer: tokenizer)
        var conversation = ChatConversation(session, settings, isQuiet: load.quiet)
        if conversation.isTerminal, !load.quiet { Console.error("Talk to \(model). /help lists the commands, Ctrl-D ends.") }
        try await conversation.run()
    }
}
