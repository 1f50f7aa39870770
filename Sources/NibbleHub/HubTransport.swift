import AsyncHTTPClient
import Foundation
import NIOCore
import NIOPosix

/// Requests to the Hub and where it redirects to: token, redirects, retries.
struct HubTransport: Sendable {
    private let client: HTTPClient
    private let configuration: HubConfiguration
    private let origin: Origin

    struct Answer {
        let status: Int
        /// The first value of a header.
        let header: @Sendable (String) -> String?
        let body: HTTPClientResponse.Body
        /// Where it came from, after redirects.
        let url: URL
        /// Where it redirects to.
        let location: URL?

        var isSuccess: Bool { (200..<300).contains(status) }
        /// Whether asking again may bring another answer.
        var mayPass: Bool { [408, 429, 500, 502, 503, 504].contains(status) }

        /// - Throws: where the body is longer than `limit`, or breaks off.
        func text(limit: Int) async throws -> String { String(buffer: try await body.collect(upTo: limit)) }
    }

    enum Redirects {
        /// Those by which the Hub renames, not those to where it stores.
        case withinHub
        case all
    }

    /// Scheme, host and port: what a token is bound to.
    private struct Origin: Equatable {
        let scheme: String
        let host: String
        let port: Int

        init?(_ url: URL) {
            guard let scheme = url.scheme?.lowercased(), scheme == "http" || scheme == "https", let host = url.host(),
                !host.isEmpty
            else { return nil }
            self.scheme = scheme
            self.host = host.lowercased()
            port = url.port ?? (scheme == "https" ? 443 : 80)
        }
    }

    /// What can be tried again.
    private struct Failure: Error {
        let reason: String
        let mayPass: Bool
        /// What the server wants us to wait.
        var delay: Duration?
        var error: HubError?
    }

    /// Runs `body` with a transport that lives as long.
    /// - Throws: ``HubError/invalidEndpoint(_:)``
    static func run<Result>(
        _ configuration: HubConfiguration, _ body: (HubTransport) async throws -> Result
    ) async throws -> Result {
        guard let url = URL(string: configuration.endpoint), let origin = Origin(url) else {
            throw HubError.invalidEndpoint(configuration.endpoint)
        }
        let client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: clientConfiguration(configuration))
        let result: Result
        do {
            result = try await body(HubTransport(client: client, configuration: configuration, origin: origin))
        } catch {
            try? await client.shutdown()
            throw error
        }
        try? await client.shutdown()
        return result
    }

    private static func clientConfiguration(_ configuration: HubConfiguration) -> HTTPClient.Configuration {
        var client = HTTPClient.Configuration(redirectConfiguration: .disallow)
        client.timeout.connect = .nanoseconds(configuration.metadataTimeout.nanoseconds)
        client.timeout.read = .nanoseconds(configuration.downloadTimeout.nanoseconds)
        // One connection a file: a shared one would slow all to the pace of one.
        client.httpVersion = .http1Only
        client.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = max(configuration.concurrentDownloads, 1)
        client.connectionPool.retryConnectionEstablishment = false
        if let proxy = configuration.proxy.flatMap(URL.init(string:)), let host = proxy.host() {
            client.proxy = .server(host: host, port: proxy.port ?? 80)
        }
        return client
    }

    // MARK: Requests

    /// Asks until there is an answer that trying again would not change.
    /// - Parameter path: from the endpoint on.
    /// - Throws: ``HubError/refused(url:status:message:)``; ``Unreachable``.
    func answer<Result>(
        head: Bool = false, _ path: String, redirects: Redirects, _ body: (Answer) async throws -> Result
    ) async throws -> Result {
        var attempt = 0
        while true {
            do {
                let answer = try await send(
                    head: head, path, redirects: redirects, from: nil, timeout: configuration.metadataTimeout)
                return try await guardingNetwork(hasAnswer: true) { try await body(answer) }
            } catch let failure as Failure {
                guard failure.mayPass, attempt < configuration.retries else {
                    throw failure.error ?? Unreachable(reason: failure.reason)
                }
                try await wait(attempt, failure)
                attempt += 1
            }
        }
    }

    /// The server could not be reached, or stopped answering.
    struct Unreachable: Error { let reason: String }

    /// Downloads the rest of a file. Breaks are made good as long as each try brings something.
    /// - Throws: ``HubError``
    func download(_ file: RemoteFile, at path: String, into partial: PartialFile, _ progress: ProgressCount) async throws {
        progress.add(partial.byteCount)
        var attempt = 0
        while partial.byteCount < file.byteCount {
            let start = partial.byteCount
            do {
                try await receive(file, at: path, into: partial, progress)
                if partial.byteCount == file.byteCount { return }
                throw Failure(reason: "the connection ended", mayPass: true)
            } catch let failure as Failure {
                if partial.byteCount > start { attempt = 0 }
                guard failure.mayPass, attempt < configuration.retries else {
                    throw failure.error
                        ?? .interrupted(
                            file: file.path, received: partial.byteCount, expected: file.byteCount, reason: failure.reason)
                }
                try await wait(attempt, failure)
                attempt += 1
            }
        }
    }

    private func receive(_ file: RemoteFile, at path: String, into partial: PartialFile, _ progress: ProgressCount) async throws {
        let start = partial.byteCount
        let answer = try await send(path, redirects: .all, from: start > 0 ? start : nil, timeout: configuration.downloadTimeout)
        let isRest = answer.status == 206 && answer.header("Content-Range")?.hasPrefix("bytes \(start)-") == true
        if start > 0, !isRest {
            // The server does not continue: from the start again.
            progress.add(-start)
            try partial.restart()
            if answer.status == 206 || answer.status == 416 {
                throw Failure(reason: "the server cannot continue a download", mayPass: true)
            }
        }
        guard answer.isSuccess else { throw await refusal(answer) }
        let length = answer.header("Content-Length").flatMap { Int($0) }
        if let length, length != file.byteCount - partial.byteCount {
            partial.discard()
            throw HubError.wrongLength(file: file.path, expected: file.byteCount, found: partial.byteCount + length)
        }
        try await guardingNetwork(hasAnswer: true) {
            for try await buffer in answer.body {
                let count = buffer.readableBytes
                guard partial.byteCount + count <= file.byteCount else {
                    partial.discard()
                    throw HubError.wrongLength(file: file.path, expected: file.byteCount, found: partial.byteCount + count)
                }
                try buffer.withUnsafeReadableBytes { try partial.append($0) }
                progress.add(count)
            }
        }
    }

    /// One request with its redirects. Statuses that may pass are thrown.
    private func send(
        head: Bool = false, _ path: String, redirects: Redirects, from start: Int?, timeout: Duration
    ) async throws -> Answer {
        guard var url = URL(string: configuration.endpoint + path) else { throw HubError.invalidEndpoint(configuration.endpoint) }
        for _ in 0..<10 {
            var request = HTTPClientRequest(url: url.absoluteString)
            request.method = head ? .HEAD : .GET
            request.headers.add(name: "User-Agent", value: "nibble")
            request.headers.add(name: "Accept-Encoding", value: "identity")
            if let start { request.headers.add(name: "Range", value: "bytes=\(start)-") }
            if let token = configuration.token, Origin(url) == origin {
                request.headers.add(name: "Authorization", value: "Bearer \(token)")
            }
            let answer = try await execute(request, url, timeout)
            if answer.mayPass { throw await refusal(answer) }
            guard let next = answer.location, redirects == .all || staysWithinHub(next) else { return answer }
            url = next
        }
        throw HubError.unexpectedAnswer(url: configuration.endpoint + path, expected: "a file", found: "redirects without end")
    }

    private func execute(_ request: HTTPClientRequest, _ url: URL, _ timeout: Duration) async throws -> Answer {
        let response = try await guardingNetwork(hasAnswer: false) {
            try await client.execute(request, timeout: .nanoseconds(timeout.nanoseconds))
        }
        let headers = response.headers
        let isRedirect = [301, 302, 303, 307, 308].contains(response.status.code)
        let location =
            isRedirect ? headers.first(name: "Location").flatMap { URL(string: $0, relativeTo: url)?.absoluteURL } : nil
        return Answer(
            status: Int(response.status.code), header: { headers.first(name: $0) }, body: response.body, url: url,
            location: location)
    }

    private func staysWithinHub(_ url: URL) -> Bool {
        guard let target = Origin(url) else { return false }
        return target == origin || target == URL(string: HubConfiguration.publicEndpoint).flatMap(Origin.init)
    }

    // MARK: Failures

    private func refusal(_ answer: Answer) async -> Failure {
        var message = answer.header("X-Error-Message") ?? ""
        if message.isEmpty, let text = try? await answer.text(limit: 4096) { message = text }
        let delay = answer.header("Retry-After").flatMap { Int($0) }.map { Duration.seconds(min(max($0, 0), 300)) }
        let shown = message.contains("<") ? "" : String(message.prefix(200)).replacing("\n", with: " ")
        return Failure(
            reason: "status \(answer.status)", mayPass: answer.mayPass, delay: delay,
            error: .refused(url: answer.url.absoluteString.prefixBeforeQuery, status: answer.status, message: shown))
    }

    /// Failures of the network as ``Failure``; everything else as it is.
    /// - Parameter hasAnswer: the server has begun to answer, so that it is worth asking again whatever happened.
    private func guardingNetwork<Result>(hasAnswer: Bool, _ body: () async throws -> Result) async throws -> Result {
        do {
            return try await body()
        } catch let error where error is HubError || error is Failure || error is CancellationError {
            throw error
        } catch {
            if Task.isCancelled { throw CancellationError() }
            throw Failure(reason: Self.reason(error), mayPass: hasAnswer || Self.brokeOff(error))
        }
    }

    /// Whether a connection stood: a server that is not there will not be there in a second.
    private static func brokeOff(_ error: any Error) -> Bool {
        switch error {
        case let error as HTTPClientError: [.remoteConnectionClosed, .readTimeout].contains(error)
        case let error as IOError: [ECONNRESET, ECONNABORTED, EPIPE].contains(error.errnoCode)
        case ChannelError.connectTimeout: false
        default: error is ChannelError
        }
    }

    private static func reason(_ error: any Error) -> String {
        switch error {
        case let error as HTTPClientError:
            if [.connectTimeout, .deadlineExceeded, .readTimeout].contains(error) { return "it does not answer in time" }
            return error == .remoteConnectionClosed ? "the connection was closed" : error.description
        case ChannelError.connectTimeout: return "it does not answer in time"
        case let error as NIOConnectionError:
            return error.connectionErrors.first.map { reason($0.error) } ?? "the host \(error.host) is not known"
        case let error as IOError: return String(cString: strerror(error.errnoCode))
        default: return "\(error)"
        }
    }

    private func wait(_ attempt: Int, _ failure: Failure) async throws {
        let backoff = configuration.retryDelay * (1 << min(attempt, 3))
        try await Task.sleep(for: max(backoff, failure.delay ?? .zero))
    }
}

extension Duration {
    fileprivate var nanoseconds: Int64 {
        let (seconds, attoseconds) = components
        return seconds * 1_000_000_000 + attoseconds / 1_000_000_000
    }
}

extension String {
    /// Signed addresses are not for error messages.
    fileprivate var prefixBeforeQuery: String { String(prefix { $0 != "?" }) }
}
