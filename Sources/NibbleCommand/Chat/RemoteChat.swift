import Foundation
import NibbleCore
import NibbleHub

/// A server that speaks OpenAI's API.
struct RemoteChat: Sendable {
    private static let client = HTTPClient()

    /// Without a slash at the end, and with `/v1`.
    let address: String
    let key: String?

    private struct Full: Error {}

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

    private func request(_ path: String, _ body: JSONValue? = nil) -> HTTPRequest {
        var request = HTTPRequest(address + path)
        if let key { request.headers.append(("Authorization", "Bearer \(key)")) }
        if let body {
            request.method = "POST"
            request.headers.append(("Content-Type", "application/json"))
            request.body = Array(body.encoded().utf8)
        }
        request.connectLimit = .seconds(30)
        return request
    }

    /// Sends a request and passes the pieces of a successful answer to `receive`.
    private func send(_ request: HTTPRequest, _ receive: @escaping (UnsafeRawBufferPointer) throws -> Void) async throws {
        var status = 0
        var message: [UInt8] = []
        do {
            try await Self.client.perform(request) {
                status = $0.status
            } body: { bytes in
                if status == 200 { return try receive(bytes) }
                message += bytes.prefix((1 << 20) - message.count)
                if message.count == 1 << 20 { throw Full() }
            }
        } catch is Full {
            // The rest is not read.
        } catch let error as HTTPFailure {
            throw Failure(
                description:
                    "\(address) cannot be reached: \(NetworkReason.text(error)); check --server, and that the server runs")
        }
        guard status != 200 else { return }
        let text = String(decoding: message, as: UTF8.self)
        let json = try? JSONValue.parse(text)
        let shown = json?["error"]?["message"]?.string ?? json?["error"]?.string ?? String(text.prefix(200))
        throw Failure(description: "\(address) answers \(status): \(shown)")
    }

    /// The first model that the server lists.
    func model() async throws -> String {
        var bytes: [UInt8] = []
        try await send(request("/models")) {
            bytes += $0.prefix((16 << 20) - bytes.count)
            if bytes.count == 16 << 20 { throw Full() }
        }
        guard let name = try? JSONValue.parse(String(decoding: bytes, as: UTF8.self))["data"]?[0]?["id"]?.string else {
            throw Failure(description: "\(address) lists no model: name one")
        }
        return name
    }

    /// Passes the pieces of an answer to `show`. Cancelling the task closes the connection, which ends the answer there.
    func stream(_ body: JSONValue, _ show: @escaping (String) -> Void) async throws {
        struct Done: Error {}
        var rest: [UInt8] = []
        do {
            try await send(request("/chat/completions", body)) { bytes in
                rest += bytes
                while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
                    let line = String(decoding: rest[..<end], as: UTF8.self).trimmingCharacters(in: .whitespaces)
                    rest.removeSubrange(...end)
                    guard line.hasPrefix("data:") else { continue }
                    let data = line.dropFirst(5).drop { $0 == " " }
                    if data.hasPrefix("[DONE]") { throw Done() }
                    guard let frame = try? JSONValue.parse(String(data)) else { continue }
                    if let message = frame["error"]?["message"]?.string { throw Failure(description: message) }
                    if let text = frame["choices"]?[0]?["delta"]?["content"]?.string, !text.isEmpty { show(text) }
                }
            }
        } catch is Done {}
    }
}
