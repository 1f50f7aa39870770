import Hummingbird
import NibbleCore

struct ResponsesEndpoint: Sendable {
    let core: ServerCore
    func respond(_ b: JSONField, _ c: ServerContext, client: String) async throws -> Response { throw APIError.stopping }
}
struct OllamaEndpoints: Sendable {
    let core: ServerCore
    func chat(_ b: JSONField, _ c: ServerContext, client: String) async throws -> Response { throw APIError.stopping }
    func generate(_ b: JSONField, _ c: ServerContext, client: String) async throws -> Response { throw APIError.stopping }
    func show(_ b: JSONField) throws -> Response { throw APIError.stopping }
    func tags() -> Response { .json(.null) }
    func running() -> Response { .json(.null) }
    func version() -> Response { .json(.null) }
}
enum OpenAPI { static func document(_ c: ServerConfiguration) -> JSONValue { .null } }
