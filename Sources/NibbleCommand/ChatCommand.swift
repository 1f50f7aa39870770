import ArgumentParser
import Foundation
import Nibble
import NibbleCore
import NibbleGeneration

struct ChatCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "chat",
        abstract: "Talk with a model in the terminal.",
        discussion: """
            Answers stream as they are made; the model sees the whole conversation. Ctrl-C stops an answer, Ctrl-D or /exit \
            ends. /help lists the commands; /set changes options. Answers are sampled at temperature 0.7 and top-p 0.9 where \
            neither options nor the model's generation_config.json say otherwise; --do-sample false or --temperature 0 always \
            takes the most likely token. Where standard input is no terminal, each of its lines is a message, and only answers \
            are printed. With --server the model runs on a server that speaks OpenAI's API, such as nibble serve.
            """)

    @Argument(
        help:
            "A model folder, a GGUF file, or owner/name on the Hub; with --server a name that the server knows (default: its first).",
        completion: .file()
    )
    var model: String?

    @Option(help: "The address of a server to talk to instead of loading a model, such as http://127.0.0.1:8080.")
    var server: String?

    @Option(help: "The key for the server (default: the environment's NIBBLE_API_KEY, or none).")
    var apiKey: String?

    @Option(help: "What the model is told before all messages.")
    var system: String?

    @OptionGroup(title: "Structured output")
    var grammar: GrammarOptionsGroup

    @OptionGroup(title: "Chat options")
    var chat: ChatOptionsGroup

    @OptionGroup(title: "Generation options")
    var generation: GenerationOptionsGroup

    @OptionGroup(title: "Adapters")
    var adapters: AdapterOptionsGroup

    @OptionGroup(title: "Load options")
    var load: LoadOptionsGroup

    func validate() throws {
        if server == nil, model == nil { throw ValidationError("Missing expected argument '<model>'") }
        if server == nil, apiKey != nil { throw ValidationError("--api-key is for --server") }
        if let server, !RemoteChat.isAddress(server) {
            throw ValidationError("--server should be an address such as http://127.0.0.1:8080, found \"\(server)\"")
        }
        if server != nil, grammar.isGiven || chat.chatTemplate != nil {
            throw ValidationError("structured output and --chat-template do not go to a server: leave them out with --server")
        }
        if (generation.numBeams ?? 1) > 1 || (generation.numReturnSequences ?? 1) > 1 {
            throw ValidationError("a chat answers with one sequence: --num-beams and --num-return-sequences cannot be used")
        }
    }

    func run() async throws {
        if let server { return try await runRemote(RemoteChat(server, key: apiKey ?? Self.keyOfEnvironment)) }
        guard let model else { return }
        var config = try generation.config(isGreedyByDefault: false)
        let template = try chat.template()
        let compiled = try grammar.compiled()
        let loading = try load.configuration(adapters)
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

    private static var keyOfEnvironment: String? { ProcessInfo.processInfo.environment["NIBBLE_API_KEY"] }

    private func runRemote(_ server: RemoteChat) async throws {
        let name: String
        if let model { name = model } else { name = try await server.model() }
        var conversation = RemoteConversation(
            server, model: name, system: system, options: try generation.config(isGreedyByDefault: false).chatFields)
        if conversation.isTerminal, !load.quiet {
            Console.error("Talk to \(name) at \(server.address). /help lists the commands, Ctrl-D ends.")
        }
        try await conversation.run()
    }
}

extension GenerationConfig {
    /// The options by their names in chat completions. What was not given is left to the server.
    fileprivate var chatFields: JSONObject {
        var fields = JSONObject()
        fields["max_tokens"] = maxNewTokens.map { .int($0) }
        fields["temperature"] = doSample == false ? 0 : temperature.map { .double(Double($0)) }
        fields["top_p"] = topP.map { .double(Double($0)) }
        fields["top_k"] = topK.map { .int($0) }
        fields["min_p"] = minP.map { .double(Double($0)) }
        fields["repetition_penalty"] = repetitionPenalty.map { .double(Double($0)) }
        fields["seed"] = seed.map { .int(Int(truncatingIfNeeded: $0)) }
        fields["stop"] = stopStrings.map { .array($0.map { .string($0) }) }
        return fields
    }
}
