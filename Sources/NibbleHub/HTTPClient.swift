internal import CNibbleHub
import Foundation
import NibbleCore
import Synchronization

/// HTTP and HTTPS with the system's libcurl: its TLS, its certificates, its name lookup. The library is opened at the first
/// request, so that a program which downloads nothing needs none.
package final class HTTPClient: Sendable {
    /// Connections that are kept for the next request.
    private let idle = Mutex<[Connection]>([])

    private struct Connection: @unchecked Sendable { let curl: OpaquePointer }

    package init() {}

    deinit { for connection in idle.withLock(\.self) { nibble_curl_free(connection.curl) } }

    /// Why there is no library; `nil` where there is one.
    private static let missingLibrary: String? = {
        // The second is Debian's build with GnuTLS, which comes with git.
        let names = ["libcurl.so.4", "libcurl-gnutls.so.4", "libcurl.so"]
        var reasons: [String] = []
        for name in names {
            var text = [CChar](repeating: 0, count: 300)
            if nibble_curl_open(name, &text, text.count) == 0 { return nil }
            reasons.append(text.withUnsafeBufferPointer { String(cString: $0.baseAddress!) })
        }
        return reasons[0]
    }()

    /// Sends a request and passes its answer on as it comes in; redirects are the caller's. `head` and `body` are called one
    /// at a time, on another thread, and what they throw ends the transfer. The server waits while `body` works.
    /// - Throws: ``HTTPFailure``, `CancellationError`, and what `head` and `body` throw.
    package func perform(
        _ request: HTTPRequest, head: @escaping (HTTPHead) throws -> Void,
        body: @escaping (UnsafeRawBufferPointer) throws -> Void
    ) async throws {
        if let reason = Self.missingLibrary { throw HTTPFailure.noLibrary(reason: reason) }
        // Such as a token that was read with the line after it: it would become a header of its own.
        if let header = request.headers.first(where: { $0.value.utf8.contains { [0, 10, 13].contains($0) } }) {
            throw HTTPFailure.other("the value of \(header.name) holds a line break")
        }
        let transfer = HTTPTransfer(request, head: head, body: body)
        try await withTaskCancellationHandler {
            try Task.checkCancellation()
            let outcome = await withCheckedContinuation { continuation in
                Thread.detachNewThread { continuation.resume(returning: self.outcome(transfer)) }
            }
            try transfer.check(outcome)
        } onCancel: {
            transfer.cancel()
        }
    }

    private func outcome(_ transfer: HTTPTransfer) -> NibbleCurlOutcome {
        let kept = idle.withLock { $0.popLast() }
        guard let curl = kept?.curl ?? nibble_curl_new() else {
            var outcome = NibbleCurlOutcome()
            outcome.code = 27
            return outcome
        }
        defer { idle.withLock { $0.append(Connection(curl: curl)) } }
        return transfer.perform(curl)
    }
}

/// A request, with how long it may take.
package struct HTTPRequest: Sendable {
    package var method = "GET"
    package var url: String
    package var headers: [(name: String, value: String)] = []
    package var body: [UInt8]?
    /// Every request goes through it, also one over plain HTTP, by CONNECT. The environment's variables are not read here.
    package var proxy: HubProxy?
    /// Until there is a connection.
    package var connectLimit: Duration?
    /// Until the head of the answer is there.
    package var answerLimit: Duration?
    /// How long the body may bring nothing.
    package var silenceLimit: Duration?

    package init(_ url: String) { self.url = url }
}

/// Status and headers of an answer.
package struct HTTPHead: Sendable {
    package let status: Int
    package fileprivate(set) var headers: [(name: String, value: String)] = []

    /// The first value of a header. Case does not matter.
    package subscript(name: String) -> String? {
        let name = name.lowercased()
        return headers.first { $0.name.lowercased() == name }?.value
    }

    /// - Parameter line: `HTTP/1.1 200 OK`
    fileprivate init(statusLine line: String) {
        let words = line.split(separator: " ")
        status = words.count > 1 ? Int(words[1]) ?? 0 : 0
    }
}

/// Why there is no answer, or only a part of one.
package enum HTTPFailure: Error, Sendable, Equatable {
    /// libcurl is not installed.
    case noLibrary(reason: String)
    case timedOut
    case unknownHost
    case unknownProxy
    /// The proxy answered CONNECT with another status than 200.
    case refusedByProxy(status: Int)
    /// There was a connection, and it ended.
    case closed
    /// No connection, a certificate that is not trusted, and whatever else libcurl names.
    case other(String)
}

extension HTTPFailure: CustomStringConvertible {
    package var description: String {
        switch self {
        case .noLibrary(let reason):
            "libcurl is needed for it and cannot be loaded (\(reason)): install it, for example with 'apt install libcurl4'"
        case .timedOut: "it does not answer in time"
        case .unknownHost: "the host is not known"
        case .unknownProxy: "the proxy's host is not known"
        case .refusedByProxy(let status): "the proxy refuses to connect (status \(status))"
        case .closed: "the connection was closed"
        case .other(let message): message
        }
    }
}

/// One request on its way. While it is, only its thread uses the mutable state, and other threads at most cancel it.
private final class HTTPTransfer: @unchecked Sendable {
    private let request: HTTPRequest
    private let onHead: (HTTPHead) throws -> Void
    private let onBody: (UnsafeRawBufferPointer) throws -> Void
    private let isCancelled = Atomic(false)
    private var head: HTTPHead?
    private var error: (any Error)?

    init(
        _ request: HTTPRequest, head: @escaping (HTTPHead) throws -> Void,
        body: @escaping (UnsafeRawBufferPointer) throws -> Void
    ) {
        self.request = request
        onHead = head
        onBody = body
    }

    func cancel() { isCancelled.store(true, ordering: .relaxed) }

    func perform(_ curl: OpaquePointer) -> NibbleCurlOutcome {
        var texts: [UnsafeMutablePointer<CChar>?] = []
        func text(_ text: String?) -> UnsafePointer<CChar>? {
            guard let text else { return nil }
            texts.append(strdup(text))
            return UnsafePointer(texts[texts.count - 1])
        }
        defer { for text in texts { free(text) } }
        var form = NibbleCurlRequest()
        form.method = text(request.method)
        form.url = text(request.url)
        form.proxy = text(request.proxy.map { "http://" + $0.authority })
        form.proxyUser = text(request.proxy?.user)
        form.proxyPassword = text(request.proxy?.user == nil ? nil : request.proxy?.password ?? "")
        form.connectLimit = request.connectLimit?.milliseconds ?? 0
        form.answerLimit = request.answerLimit?.milliseconds ?? 0
        form.silenceLimit = request.silenceLimit?.milliseconds ?? 0
        form.context = Unmanaged.passUnretained(self).toOpaque()
        form.onHeader = { HTTPTransfer.of($0).receive(line: UnsafeRawBufferPointer(start: $1, count: $2)) }
        form.onBody = { HTTPTransfer.of($0).receive(UnsafeRawBufferPointer(start: $1, count: $2)) }
        form.isCancelled = { HTTPTransfer.of($0).isCancelled.load(ordering: .relaxed) ? 1 : 0 }
        // A header without a value keeps libcurl from waiting for "100 Continue".
        let lines = (request.headers.map { "\($0.name): \($0.value)" } + ["Expect:"]).map(text)
        return lines.withUnsafeBufferPointer { lines in
            form.headers = lines.baseAddress
            form.headerCount = Int32(lines.count)
            guard let body = request.body else { return nibble_curl_perform(curl, &form) }
            return (body + [0]).withUnsafeBytes {
                form.body = $0.baseAddress
                form.bodySize = body.count
                return nibble_curl_perform(curl, &form)
            }
        }
    }

    private static func of(_ context: UnsafeMutableRawPointer?) -> HTTPTransfer {
        Unmanaged.fromOpaque(context!).takeUnretainedValue()
    }

    /// A line of the head. Answers such as "100 Continue" come before the one that counts, trailers after it.
    private func receive(line bytes: UnsafeRawBufferPointer) -> Int32 {
        let line = String(decoding: bytes, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        if line.hasPrefix("HTTP/") {
            head = HTTPHead(statusLine: line)
        } else if !line.isEmpty, let colon = line.firstIndex(of: ":") {
            let value = line[line.index(after: colon)...].trimmingCharacters(in: .whitespaces)
            head?.headers.append((String(line[..<colon]), value))
        } else if line.isEmpty, let whole = head, whole.status >= 200 {
            head = nil
            return guarding { try onHead(whole) }
        }
        return 0
    }

    private func receive(_ bytes: UnsafeRawBufferPointer) -> Int32 { guarding { try onBody(bytes) } }

    private func guarding(_ body: () throws -> Void) -> Int32 {
        do {
            try body()
            return 0
        } catch {
            self.error = error
            return 1
        }
    }

    /// - Throws: why the transfer did not come to its end.
    func check(_ outcome: NibbleCurlOutcome) throws {
        if let error { throw error }
        switch outcome.code {
        case 0: return
        case Int32(NIBBLE_CURL_STOPPED): throw CancellationError()
        case _ where outcome.proxyStatus != 0 && outcome.proxyStatus / 100 != 2:
            throw HTTPFailure.refusedByProxy(status: outcome.proxyStatus)
        case Int32(NIBBLE_CURL_TIMED_OUT): throw HTTPFailure.timedOut
        case 5: throw HTTPFailure.unknownProxy
        case 6: throw HTTPFailure.unknownHost
        case 7 where outcome.systemError != 0: throw HTTPFailure.other(String(cString: strerror(Int32(outcome.systemError))))
        // An incomplete answer, none, and errors of send and recv.
        case 18, 52, 55, 56: throw HTTPFailure.closed
        default:
            throw HTTPFailure.other(
                withUnsafeBytes(of: outcome.message) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) })
        }
    }
}

extension Duration {
    fileprivate var milliseconds: Int { max(Int(self / .milliseconds(1)), 1) }
}
