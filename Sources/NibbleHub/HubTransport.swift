import AsyncHTTPClient
import Foundation
import NIOCore
import NIOPosix
import NibbleCore

/// Requests to the Hub and to the servers it redirects to: token, redirects, retries.
struct HubTransport: Sendable {
    private let client: HTTPClient
    private let configuration: HubConfiguration
    private let origin: Origin
    private let proxy: HubProxy?
    private let secrets: HubSecrets

    struct Answer {
        let status: Int
        /// The first value of a header.
        let header: @Sendable (String) -> String?
        let body: HTTPClientResponse.Body
        /// The address that answered, after redirects.
        let url: URL
        /// The address that it redirects to.
        let location: URL?

        /// ``url`` as an error may show it.
        var address: String { url.absoluteString.publicAddress }

        var isSuccess: Bool { (200..<300).contains(status) }
        /// Whether a repeated request may have another answer.
        var mayPass: Bool { [408, 429, 500, 502, 503, 504].contains(status) }

        /// - Throws: where the body is longer than `limit`, or breaks off.
        func text(limit: Int) async throws -> String { String(buffer: try await body.collect(upTo: limit)) }
    }

    enum Redirects {
        /// Those to another name on the Hub, but not those to its storage.
        case withinHub
        case all
    }

    /// Scheme, host and port. A token is sent to one origin only.
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

    /// A failure that may be temporary.
    private struct Failure: Error {
        let reason: String
        let mayPass: Bool
        /// How long the server asks to wait.
        var delay: Duration?
        var error: HubError?
    }

    /// Runs `body` with a transport and shuts it down afterwards.
    /// - Throws: ``HubError/invalidEndpoint(_:)``, ``HubError/invalidToken``, ``HubError/unsupportedProxy(scheme:)``,
    ///   ``HubError/invalidProxy``
    static func run<Result>(
        _ configuration: HubConfiguration, _ body: (HubTransport) async throws -> Result
    ) async throws -> Result {
        var configuration = configuration
        let token = configuration.token?.trimmingCharacters(in: .whitespacesAndNewlines)
        configuration.token = token?.isEmpty == true ? nil : token
        guard let url = URL(string: configuration.endpoint), let origin = Origin(url) else {
            throw HubError.invalidEndpoint(configuration.endpoint.publicAddress)
        }
        let proxy = try configuration.proxy.map(HubProxy.init)
        let secrets = try HubSecrets(token: configuration.token, proxy: proxy)
        let client = HTTPClient(
            eventLoopGroupProvider: .singleton, configuration: clientConfiguration(configuration, proxy))
        let transport = HubTransport(
            client: client, configuration: configuration, origin: origin, proxy: proxy, secrets: secrets)
        let result: Result
        do {
            result = try await body(transport)
        } catch {
            try? await client.shutdown()
            throw error
        }
        try? await client.shutdown()
        return result
    }

    private static func clientConfiguration(
        _ configuration: HubConfiguration, _ proxy: HubProxy?
    ) -> HTTPClient.Configuration {
        var client = HTTPClient.Configuration(redirectConfiguration: .disallow)
        client.timeout.connect = .nanoseconds(configuration.metadataTimeout.nanoseconds)
        client.timeout.read = .nanoseconds(configuration.downloadTimeout.nanoseconds)
        // One connection for each file: on a shared one, all files together get the speed of one.
        client.httpVersion = .http1Only
        client.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = max(configuration.concurrentDownloads, 1)
        client.connectionPool.retryConnectionEstablishment = false
        client.proxy = proxy?.clientProxy
        return client
    }

    /// A text from a server or a library as an error may show it.
    func shown(_ text: some StringProtocol, limit: Int = 200) -> String { secrets.shown(text, limit: limit) }

    // MARK: Requests

    /// Repeats a request until it has an answer that another attempt would not change.
    /// - Parameter path: relative to the endpoint.
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

    /// Downloads the rest of a file. A connection that breaks is continued as long as each attempt receives something.
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
            // The server does not continue the file, so it starts again.
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

    /// One request with its redirects. Statuses that may be temporary are thrown.
    private func send(
        head: Bool = false, _ path: String, redirects: Redirects, from start: Int?, timeout: Duration
    ) async throws -> Answer {
        guard var url = URL(string: configuration.endpoint + path) else {
            throw HubError.invalidEndpoint(configuration.endpoint.publicAddress)
        }
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
        throw HubError.unexpectedAnswer(
            url: configuration.endpoint.publicAddress + path, expected: "a file", found: "redirects without end")
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
        let text = message.contains("<") ? "" : message.split { $0.isNewline }.joined(separator: " ")
        return Failure(
            reason: "status \(answer.status)", mayPass: answer.mayPass, delay: delay,
            error: .refused(url: answer.address, status: answer.status, message: shown(text)))
    }

    /// Throws failures of the network as ``Failure`` and everything else as it is.
    /// - Parameter hasAnswer: whether the server has begun to answer. If so, another attempt is worthwhile whatever happened.
    private func guardingNetwork<Result>(hasAnswer: Bool, _ body: () async throws -> Result) async throws -> Result {
        do {
            return try await body()
        } catch let error where error is HubError || error is Failure || error is CancellationError {
            throw error
        } catch {
            if Task.isCancelled { throw CancellationError() }
            throw Failure(reason: shown(reason(error)), mayPass: hasAnswer || Self.brokeOff(error))
        }
    }

    /// Whether a connection existed. A server that cannot be connected to will not be there in a second.
    private static func brokeOff(_ error: any Error) -> Bool {
        switch error {
        case let error as HTTPClientError: [.remoteConnectionClosed, .readTimeout].contains(error)
        case let error as IOError: [ECONNRESET, ECONNABORTED, EPIPE].contains(error.errnoCode)
        case ChannelError.connectTimeout: false
        default: error is ChannelError
        }
    }

    private func reason(_ error: any Error) -> String {
        switch error {
        case let error as HTTPClientError: return reason(error)
        case ChannelError.connectTimeout: return "it does not answer in time"
        case let error as NIOConnectionError:
            return error.connectionErrors.first.map { reason($0.error) } ?? "the host \(error.host) is not known"
        case let error as IOError: return String(cString: strerror(error.errnoCode))
        default: return "\(error)"
        }
    }

    private func reason(_ error: HTTPClientError) -> String {
        let proxyAddress = proxy?.address ?? ""
        switch error {
        case .connectTimeout, .deadlineExceeded, .readTimeout: return "it does not answer in time"
        case .remoteConnectionClosed: return "the connection was closed"
        case .proxyAuthenticationRequired:
            return proxy?.user == nil
                ? "the proxy \(proxyAddress) asks for a user and a password (status 407): give them as "
                    + "http://USER:PASSWORD@\(proxyAddress) in the proxy variable"
                : "the proxy \(proxyAddress) refuses the user and the password in the proxy variable (status 407)"
        case .invalidProxyResponse: return "the proxy \(proxyAddress) refuses to connect"
        default: return error.description
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
