#if Server
import ArgumentParser
import Foundation
import Nibble
import NibbleServer

struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Answer HTTP requests as OpenAI's API does.",
        discussion: """
            Serves /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/models, /v1/messages (Anthropic's form), /v1/responses, \
            Ollama's API under /api, /tokenize, /lora-adapters, /health, /ready, /metrics and a chat page at /. Requests run side by side and share the cache of equal prefixes. One line \
            on standard error says when the server listens. SIGTERM lets requests end, a second one ends them at once.
            """)

    @Argument(help: "A model folder, a GGUF file, or owner/name on the Hub.", completion: .file())
    var model: String

    @Option(help: "The address to listen on; 0.0.0.0 for all of this machine's.")
    var host = "127.0.0.1"

    @Option(help: "The port to listen on; 0: any free one.")
    var port = 8080

    @Option(help: "A key that clients must send; may be repeated (default: the environment's NIBBLE_API_KEY, or none).")
    var apiKey: [String] = []

    @Option(help: "The name by which clients ask for the model; may be repeated, the first is shown (default: MODEL).")
    var servedModelName: [String] = []

    @Option(
        name: .customLong("adapter"),
        help: ArgumentHelp(
            "A LoRA adapter, as peft writes it, and the name by which requests ask for it as a model. Repeatable.",
            valueName: "name=folder"))
    var adapters: [String] = []

    @Flag(help: "Let clients load and unload adapters from folders of this machine.")
    var allowAdapterUpdates = false

    @Option(help: "Sequences that run at once.")
    var maxBatch = 16

    @Option(help: "Copies of the model, each on a GPU of its own; requests are divided among them.")
    var dpSize = 1

    @Option(help: "Requests that may wait; further ones get status 429.")
    var maxQueue = 512

    @Option(help: "Tokens that the prompts of waiting requests may have together (default: no limit).")
    var maxQueueTokens: Int?

    @Option(help: "Memory for keys and values on each device, such as 2GB (default: what the sequences can fill).")
    var kvBudget: String?

    @Option(help: "Connections that may be open. Further ones close those that wait longest for their clients.")
    var maxConnections = 1024

    @Option(help: "The origin whose pages may ask from a browser, * for any (default: pages of this machine).")
    var corsOrigin: String?

    @Option(help: "Bytes that a request's body may have.")
    var bodyLimit = 2 << 20

    @Option(help: "Seconds that a request may take (default: no limit).")
    var requestTimeout: Double?

    @Option(help: "Seconds that requests get to end after SIGTERM.")
    var shutdownTimeout = 30.0

    @Option(help: "Before the names of all metrics; vllm: suits dashboards made for vLLM.")
    var metricsPrefix = "nibble_"

    @OptionGroup(title: "Chat options")
    var chat: ChatOptionsGroup

    @OptionGroup(title: "Load options")
    var load: LoadOptionsGroup

    func validate() throws {
        guard (0...65535).contains(port) else { throw ValidationError("--port must be from 0 to 65535, found \(port)") }
        if apiKey.contains("") { throw ValidationError("--api-key should be a key, found nothing") }
        if servedModelName.contains("") { throw ValidationError("--served-model-name should be a name, found nothing") }
        _ = try budget()
        let names = try namedAdapters().map(\.name) + (servedModelName.isEmpty ? [model] : servedModelName)
        if let name = names.first(where: { name in names.count { $0 == name } > 1 }) {
            throw ValidationError("--adapter: the name \"\(name)\" is given twice, or is the model's")
        }
        guard maxBatch > 0 else { throw ValidationError("--max-batch must be at least 1, found \(maxBatch)") }
        guard dpSize > 0 else { throw ValidationError("--dp-size must be at least 1, found \(dpSize)") }
        guard maxQueue > 0 else { throw ValidationError("--max-queue must be at least 1, found \(maxQueue)") }
        if let maxQueueTokens, maxQueueTokens < 1 {
            throw ValidationError("--max-queue-tokens must be at least 1, found \(maxQueueTokens)")
        }
        guard maxConnections > 0 else {
            throw ValidationError("--max-connections must be at least 1, found \(maxConnections)")
        }
        guard bodyLimit > 0 else { throw ValidationError("--body-limit must be at least 1, found \(bodyLimit)") }
        guard shutdownTimeout >= 0, shutdownTimeout.isFinite else {
            throw ValidationError("--shutdown-timeout must be at least 0, found \(shutdownTimeout)")
        }
        if let requestTimeout, !(requestTimeout > 0 && requestTimeout.isFinite) {
            throw ValidationError("--request-timeout must be above 0, found \(requestTimeout)")
        }
    }

    private func namedAdapters() throws -> [(name: String, folder: String)] {
        try adapters.map { text in
            let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            guard parts.count == 2, !parts[0].isEmpty, !parts[1].isEmpty else {
                throw ValidationError("--adapter should be NAME=FOLDER, found \"\(text)\"")
            }
            return (parts[0], parts[1])
        }
    }

    private func budget() throws -> MemoryLimit? { try kvBudget.map { try MemoryLimit(option: "--kv-budget", $0) } }

    func run() async throws {
        var configuration = ServerConfiguration(modelNames: servedModelName.isEmpty ? [model] : servedModelName)
        configuration.host = host
        configuration.port = port
        configuration.apiKeys = apiKey.isEmpty ? ProcessInfo.processInfo.environment["NIBBLE_API_KEY"].map { [$0] } ?? [] : apiKey
        configuration.corsOrigin = corsOrigin
        configuration.bodyLimit = bodyLimit
        configuration.maxConnections = OpenFiles.room(for: maxConnections)
        configuration.report = { Console.error($0) }
        configuration.requestTimeout = requestTimeout
        configuration.shutdownTimeout = shutdownTimeout
        configuration.metricsPrefix = metricsPrefix
        configuration.version = Version.number
        configuration.chatTemplate = try chat.template()
        configuration.allowsAdapterUpdates = allowAdapterUpdates

        let loading = try load.configuration()
        let folder = try await PretrainedFiles.folder(for: model, .all, loading)
        let tokenizer = try AutoTokenizer.from(model: folder)
        let copies = try PretrainedModel.load(folder: folder, loading, copies: dpSize)
        let pretrained = copies[0]
        Report.show(pretrained.report, quiet: load.quiet)
        // A model without a limit of its own would get all memory for one context, and answers without an end.
        let context = load.context ?? (pretrained.maximumPositions == nil ? tokenizer.modelMaxLength : nil)
        var size = EngineConfiguration(maxBatch: maxBatch, context: context, cacheBudget: try budget(), maxQueue: maxQueue)
        size.maxQueueTokens = maxQueueTokens ?? .max
        let engine = try await engine(pretrained, size, tokenizer, replicas: Array(copies.dropFirst()))
        let service = EngineService(engine) { folder, name in
            let read = try pretrained.rowAdapter(folder, named: name)
            for warning in read.warnings { Console.error("warning: \(warning)") }
            return read.sums
        }
        for adapter in try namedAdapters() {
            try await service.loadAdapter(adapter.name, path: adapter.folder, replaces: false)
        }
        let server = Server(configuration, model: ServedModel(pretrained, tokenizer: tokenizer), service: service)
        let shown = host.contains(":") ? "[\(host)]" : host
        do {
            try await server.run { port in Console.error("listening on http://\(shown):\(port)") }
        } catch let error where !(error is ServerFailure || error is CancellationError) {
            throw ListenError(address: "\(shown):\(port)", reason: NetworkReason.text(error))
        }
    }

    private func engine(
        _ model: PretrainedModel, _ size: EngineConfiguration, _ tokenizer: Tokenizer, replicas: [PretrainedModel]
    ) async throws -> Engine {
        do {
            return try await model.engine(size, tokenizer: tokenizer, replicas: replicas)
        } catch BackendError.outOfMemory(let device, let requested, _, let budget?) where kvBudget != nil {
            throw CommandFailure(
                description: "--kv-budget of \(ByteCount.text(budget)) is too small: keys and values need at least "
                    + "\(ByteCount.text(requested)) on \(device)")
        }
    }

    /// The socket cannot be opened.
    private struct ListenError: Error, CustomStringConvertible {
        let address: String
        let reason: String
        var description: String { "cannot listen on \(address): \(reason). Choose another address with --host and --port" }
    }
}
#endif
