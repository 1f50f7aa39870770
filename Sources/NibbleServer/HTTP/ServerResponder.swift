import Foundation
import HTTPTypes
import Hummingbird
import NIOCore
import NibbleCore

/// Answers requests: finds the route, asks for the key, and gives every error its form.
struct ServerResponder: HTTPResponder {
    typealias Context = ServerContext

    let core: ServerCore
    let routes: Routes

    init(_ core: ServerCore) {
        self.core = core
        routes = Routes(core)
    }

    func respond(to request: Request, context: ServerContext) async throws -> Response {
        let path = request.uri.path
        let route = routes.route(path)
        let identifier = "req_" + Identifiers.random(24)
        var response: Response
        do {
            response = try await answer(request, path, route, context)
        } catch {
            let error = APIError(error, promptField: promptField(path))
            response = failure(error, path)
            if hasLongBody(request) || error.status == .contentTooLarge { response.headers[.connection] = "close" }
        }
        if request.method == .head { response = response.createHeadResponse() }
        response.headers[.requestID] = identifier
        addOrigin(request, &response)
        if core.life.phase != .ready { response.headers[.connection] = "close" }
        core.metrics.answered(
            ServerMetrics.HTTPKey(
                handler: route?.name ?? "none", method: Self.knownMethod(request.method.rawValue), status: response.status.code))
        return response
    }

    private static func knownMethod(_ method: String) -> String {
        ["GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH"].contains(method) ? method : "OTHER"
    }

    private func answer(
        _ request: Request, _ path: String, _ route: Routes.Route?, _ context: ServerContext
    ) async throws -> Response {
        guard let route else { throw APIError.unknownPath(path) }
        let method = request.method.rawValue
        let methods = route.handlers.keys.sorted()
        if method == "OPTIONS" {
            return Response(status: .noContent, headers: [.allow: (methods + ["OPTIONS"]).joined(separator: ", ")])
        }
        guard let handler = route.handlers[method] else { throw APIError.wrongMethod(allowed: methods) }
        let client = try route.isOpen ? "" : client(request)
        if core.life.phase != .ready, method == "POST" { throw APIError.stopping }
        return try await handler(RequestHead(path: path, method: method, client: client, request: request), context)
    }

    /// The key that a request comes with.
    /// - Throws: ``APIError/wrongKey``
    private func client(_ request: Request) throws -> String {
        guard !core.configuration.apiKeys.isEmpty else { return "" }
        let bearer = request.headers[.authorization].flatMap { value in
            value.lowercased().hasPrefix("bearer ") ? String(value.dropFirst(7)) : nil
        }
        guard let given = request.headers[.apiKey] ?? bearer,
            let key = core.configuration.apiKeys.first(where: { Self.equal($0, given) })
        else { throw APIError.wrongKey }
        return key
    }

    /// Takes the same time wherever two keys of one length differ.
    private static func equal(_ a: String, _ b: String) -> Bool {
        guard a.utf8.count == b.utf8.count else { return false }
        return zip(a.utf8, b.utf8).reduce(UInt8(0)) { $0 | ($1.0 ^ $1.1) } == 0
    }

    private func promptField(_ path: String) -> String { path == "/v1/completions" ? "prompt" : "messages" }

    private func failure(_ error: APIError, _ path: String) -> Response {
        let form =
            path.hasPrefix("/v1/messages")
            ? Messages.json(error) : path.hasPrefix("/api/") ? OllamaAnswers.json(error) : error.json
        let status = path.hasPrefix("/v1/messages") && error.status == .serviceUnavailable ? .init(code: 529) : error.status
        var response = Response.json(form, status: status)
        if let seconds = error.retryAfter { response.headers[.retryAfter] = "\(seconds)" }
        if let allow = error.allow { response.headers[.allow] = allow }
        if error.status == .unauthorized { response.headers[.wwwAuthenticate] = "Bearer" }
        if !error.mayRetry { response.headers[.shouldRetry] = "false" }
        return response
    }

    /// Whether the body is too long to be read in vain, or may be.
    private func hasLongBody(_ request: Request) -> Bool {
        if let length = request.headers[.contentLength].flatMap({ Int($0) }) { return length > core.configuration.bodyLimit }
        return request.headers[.transferEncoding] != nil
    }

    // MARK: Browsers

    private func addOrigin(_ request: Request, _ response: inout Response) {
        guard let origin = request.headers[.origin], allows(origin) else { return }
        response.headers[.accessControlAllowOrigin] = core.configuration.corsOrigin == "*" ? "*" : origin
        response.headers[.vary] = "Origin"
        guard request.method == .options else { return }
        response.headers[.accessControlAllowMethods] = "GET, POST, OPTIONS"
        response.headers[.accessControlAllowHeaders] =
            request.headers[.accessControlRequestHeaders] ?? "authorization, content-type"
        response.headers[.accessControlMaxAge] = "600"
    }

    private func allows(_ origin: String) -> Bool {
        if let allowed = core.configuration.corsOrigin { return allowed == "*" || allowed == origin }
        guard let host = URL(string: origin)?.host else { return false }
        return ["localhost", "127.0.0.1", "::1", "[::1]"].contains(host)
    }
}
