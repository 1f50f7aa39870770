import HTTPTypes
import NIOHTTP1
import NibbleCore
import NibbleTemplates

/// An error as OpenAI's clients read it: a status, and `{"error": {"message", "type", "param", "code"}}`.
struct APIError: Error, Sendable {
    var status: HTTPResponse.Status
    var message: String
    var type: String
    /// The field at fault.
    var param: String?
    var code: String?
    /// Seconds.
    var retryAfter: Int?
    /// Clients retry 408, 409, 429 and 5xx by themselves unless they are told not to.
    var mayRetry = true
    var allow: String?

    init(
        _ status: HTTPResponse.Status, _ message: String, type: String = "invalid_request_error", param: String? = nil,
        code: String? = nil
    ) {
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
    }

    var json: JSONValue {
        func text(_ value: String?) -> JSONValue { value.map(JSONValue.string) ?? .null }
        return [
            "error": ["message": .string(message), "type": .string(type), "param": text(param), "code": text(code)]
        ]
    }
}

extension APIError {
    static func invalid(_ message: String, param: String? = nil, code: String? = nil) -> APIError {
        APIError(.badRequest, message, param: param, code: code)
    }

    static let wrongKey = APIError(
        .unauthorized, "the API key is missing or wrong: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'",
        code: "invalid_api_key")

    static func unknownModel(_ name: String, served: [String]) -> APIError {
        let names = served.isEmpty ? "no adapters" : served.map { "'\($0)'" }.joined(separator: ", ")
        return APIError(
            .notFound, "the model '\(name.prefix(200))' does not exist: this server has \(names)", param: "model",
            code: "model_not_found")
    }

    static func unknownPath(_ path: String) -> APIError {
        APIError(.notFound, "there is nothing at \(path.prefix(200))", code: "not_found")
    }

    static func wrongMethod(allowed: [String]) -> APIError {
        var error = APIError(
            .methodNotAllowed, "this path takes \(allowed.joined(separator: ", "))", code: "method_not_allowed")
        error.allow = allowed.joined(separator: ", ")
        return error
    }

    static func bodyTooLarge(limit: Int) -> APIError {
        APIError(.contentTooLarge, "the body exceeds \(limit) bytes", code: "body_too_large")
    }

    static let wrongMediaType = APIError(
        .unsupportedMediaType, "the body must be JSON: send 'Content-Type: application/json'", code: "unsupported_media_type")

    static func promptTooLong(tokens: Int, context: Int, param: String) -> APIError {
        .invalid(
            "the prompt has \(tokens) tokens, but the context holds \(context), one of them for the answer: shorten the prompt",
            param: param, code: "context_length_exceeded")
    }

    static func inputTooLong(tokens: Int, context: Int, param: String) -> APIError {
        .invalid(
            "the text has \(tokens) tokens, but the context holds \(context): shorten the text", param: param,
            code: "context_length_exceeded")
    }

    static func encoderInputTooLong(tokens: Int, limit: Int, param: String) -> APIError {
        .invalid(
            "the prompt has \(tokens) tokens, but the encoder reads at most \(limit): shorten the prompt", param: param,
            code: "context_length_exceeded")
    }

    static func busy(_ message: String, retryAfter: Int) -> APIError {
        var error = APIError(.tooManyRequests, message, type: "rate_limit_exceeded", code: "rate_limit_exceeded")
        error.retryAfter = retryAfter
        return error
    }

    static let stopping = APIError(
        .serviceUnavailable, "the server is stopping", type: "overloaded", code: "server_stopping")

    static func server(_ message: String, code: String? = nil) -> APIError {
        APIError(.internalServerError, message, type: "server_error", code: code)
    }

    static var timeLimit: APIError {
        var error = APIError(
            .gatewayTimeout, "the request took longer than the server allows", type: "server_error", code: "deadline_exceeded")
        error.mayRetry = false
        return error
    }

    /// The client has gone: nobody reads it.
    static let disconnected = APIError(.init(code: 499), "the client has closed the connection", code: "client_closed")
}

extension APIError {
    /// Any error of a handler in the form that clients read.
    init(_ error: any Error, promptField: String = "messages") {
        switch error {
        case let error as APIError: self = error
        case let error as JSONError: self = APIError(error)
        case let error as JinjaError:
            self = .invalid("\(error)", param: promptField, code: "chat_template_error")
        case ServiceRefusal.busy(let message, let seconds): self = .busy(message, retryAfter: seconds)
        case ServiceRefusal.stopping: self = .stopping
        case ServiceRefusal.invalid(let message, let field): self = .invalid(message, param: field)
        case ServiceRefusal.promptTooLong(let tokens, let context):
            self = .promptTooLong(tokens: tokens, context: context, param: promptField)
        case ServiceRefusal.encoderInputTooLong(let tokens, let limit):
            self = .encoderInputTooLong(tokens: tokens, limit: limit, param: promptField)
        case is CancellationError: self = .disconnected
        case let error as HTTPParserError: self = APIError(error)
        default: self = .server("\(error)")
        }
    }

    private init(_ error: JSONError) {
        switch error {
        case .missing(_, let path): self = .invalid("field '\(path.prefix(200))' is missing", param: path)
        case .unexpected(_, let path, let expected, let found):
            let place = path.isEmpty ? "" : "field '\(path.prefix(200))': "
            self = .invalid("\(place)expected \(expected), found \(found)", param: path.isEmpty ? nil : path)
        case .syntax, .unreadable: self = .invalid("the body is not JSON: \(error)", code: "invalid_json")
        }
    }
}
