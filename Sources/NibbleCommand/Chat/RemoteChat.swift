import AsyncHTTPClient
import Foundation
import NIOCore
import NibbleCore

/// A server that speaks OpenAI's API.
struct RemoteChat: Sendable {
    /// A server that is not there is reported at once; the shared client would try again for a minute.
    private static let client: HTTPClient = {
        var configuration = HTTPClient.Configuration.singletonConfiguration
        configuration.connectionPool.retryConnectionEstablishment = false
        return HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
    }()

    /// Without a slash at the end, and with `/v1`.
    let address: String
    let key: String?

    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    /// - Parameter address: with or without `http://` and `/v1`.
    init(_ address: String, key: String?) {
        var text = address.contains("://") ? address : "http://" + address
        while text.hasSuffix("/") { text.removeLast() }
        self.address = text.hasSuffix("/v1") ? text : text + "/v1"
        self.key = key
    }

    /// Whether `text` is a host, with a port or not, or an address of `http` or `https`.
    static func isAddress(_ text: String) -> Bool {
        guard let url = URL(string: text.contains("://") ? text : "http://" + text), url.host()?.isEmpty == false else {
            return false
        }
        return url.scheme == "http" || url.scheme == "https"
    }

    private func request(_ path: String, _ body: JSONValue? = nil) -> HTTPClientRequest {
        var request = HTTPClientRequest(url: address + path)
        if let key { request.headers.add(name: "Authorization", value: "Bearer \(key)") }
        if let body {
            request.method = .POST
            request.headers.add(name: "Content-Type", value: "application/json")
            request.body = .bytes(ByteBuffer(string: body.encoded()))
        }
        return request
    }

    private func response(_ request: HTTPClientRequest) async throws -> HTTPClientResponse {
        let response: HTTPClientResponse
        do {
            response = try await Self.client.execute(request, deadline: .distantFuture)
        } catch let error where !(error is CancellationError) {
            throw Failure(
                description:
                    "\(address) cannot be reached: \(NetworkReason.text(error)); check --server, and that the server runs")
        }
        guard response.status != .ok else { return response }
        let text = String(buffer: try await response.body.collect(upTo: 1 << 20))
        let json = try? JSONValue.parse(text)
        let message = json?["error"]?["message"]?.string ?? json?["error"]?.string ?? String(text.prefix(200))
        throw Failure(description: "\(address) answers \(response.status.code): \(message)")
    }

    /// The first model that the server lists.
    func model() async throws -> String {
        let text = String(buffer: try await response(request("/models")).body.collect(upTo: 16 << 20))
        guard let name = try? JSONValue.parse(text)["data"]?[0]?["id"]?.string else {
            throw Failure(description: "\(address) lists no model: name one")
        }
        return name
    }

    /// Passes the pieces of an answer to `show`. Cancelling the task closes the connection, which ends the answer there.
    func stream(_ body: JSONValue, _ show: (String) -> Void) async throws {
        var rest: [UInt8] = []
        for try await buffer in try await response(request("/chat/completions", body)).body {
            rest += buffer.readableBytesView
            while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
                let line = String(decoding: rest[..<end], as: UTF8.self).trimmingCharacters(in: .whitespaces)
                rest.removeSubrange(...end)
                guard line.hasPrefix("data:") else { continue }
                let data = line.dropFirst(5).drop { $0 == " " }
                if data.hasPrefix("[DONE]") { return }
                guard let frame = try? JSONValue.parse(String(data)) else { continue }
                if let message = frame["error"]?["message"]?.string { throw Failure(description: message) }
                if let text = frame["choices"]?[0]?["delta"]?["content"]?.string, !text.isEmpty { show(text) }
            }
        }
    }
}
