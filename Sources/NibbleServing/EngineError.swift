/// Why a request was not taken, or did not come to its end.
public enum EngineError: Error, Sendable, Equatable {
    /// The prompt has no tokens.
    case emptyPrompt
    /// A number that must be at least 1.
    case invalidCount(field: String, found: Int)
    /// The prompt and one more token exceed what a sequence may hold.
    case promptTooLong(tokens: Int, context: Int)
    /// The input of an encoder exceeds what it can read.
    case encoderInputTooLong(tokens: Int, limit: Int)
    /// More answers were asked for than run at once.
    case tooManyChoices(asked: Int, slots: Int)
    /// So many requests wait already.
    case queueIsFull(requests: Int)
    /// The waiting prompts would have this many tokens.
    case queueHoldsTooManyTokens(tokens: Int, limit: Int)
    /// A field of the configuration asks for what an engine cannot do.
    case unsupported(field: String)
    /// Each copy of the model needs a GPU of its own.
    case tooFewGPUs(replicas: Int, found: Int)
    /// The engine takes no new requests.
    case isDraining
    /// The engine was stopped before the request had ended.
    case stopped
    /// No next token could be chosen for this answer.
    case answerFailed(choice: Int, reason: String)
    /// A step failed: every request is lost, and the engine has stopped.
    case engineFailed(String)
}

extension EngineError: CustomStringConvertible {
    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .emptyPrompt: "the prompt has no tokens"
        case .invalidCount(let field, let found): "\(field) is \(found): it must be at least 1"
        case .promptTooLong(let tokens, let context):
            "the prompt has \(tokens) tokens: with one more it must fit into the context of \(context)"
        case .encoderInputTooLong(let tokens, let limit):
            "the input has \(tokens) tokens: the encoder reads at most \(limit)"
        case .tooManyChoices(let asked, let slots): "\(asked) choices were asked for: at most \(slots) run at once"
        case .queueIsFull(let requests): "\(requests) requests are waiting: try again later"
        case .queueHoldsTooManyTokens(let tokens, let limit):
            "the waiting prompts have \(tokens) tokens of at most \(limit): try again later"
        case .unsupported(let field): "`\(field)` is not supported by an engine: use generate()"
        case .tooFewGPUs(let replicas, let found):
            "\(replicas) copies of the model need a GPU each, and this machine has \(found): ask for fewer with --dp-size"
        case .isDraining: "no new requests are taken: the engine is stopping"
        case .stopped: "the engine was stopped before the request had ended"
        case .answerFailed(let choice, let reason): "answer \(choice): \(reason)"
        case .engineFailed(let reason): "the engine has failed: \(reason)"
        }
    }
}
