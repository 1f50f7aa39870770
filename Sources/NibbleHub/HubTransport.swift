import Foundation
import NibbleCore

/// Requests to the Hub and to the servers it redirects to: token, redirects, retries.
struct HubTransport: Sendable {
    private let client = HTTPClient()
    private let configuration: HubConfiguration
    private let origin: Origin
    private let proxy: HubProxy?
    private let secrets: HubSecrets

    struct Answer {
        private let head: HTTPHead
        /// The address that answered, after redirects.
        let url: URL
        /// The body, where nothing else takes it. Of an error no more than its beginning.
        fileprivate(set) var text = ""

        fileprivate init(_ head: HTTPHead, from url: URL) {
            self.head = head
            self.url = url
        }

        var status: Int { head.status }

        /// The first value of a header.
        func header(_ name: String) -> String? { head[name] }

        /// The address that it redirects to.
        var location: URL? {
            guard [301, 302, 303, 307, 308].contains(status) else { return nil }
            return head["Location"].flatMap { URL(string: $0, relativeTo: url)?.absoluteURL }
        }

        /// ``url`` as an error may show it.
        var address: String { url.absoluteString.publicAddress }

        var isSuccess: Bool { (200..<300).contains(status) }
        /// Whether a repeated request may have another answer.
        var mayPass: Bool { [408, 429, 500, 502, 503, 504].contains(status) }
    }

    /// Takes the body of an answer, piece by piece.
    typealias Sink = (UnsafeRawBufferPointer) throws -> Void

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

        static let cannotContinue = Failure(reason: "the server cannot continue a download", mayPass: true)
    }

    /// - Throws: ``HubError/invalidEndpoint(_:)``, ``HubError/invalidToken``, ``HubError/unsupportedProxy(scheme:)``,
    ///   ``HubError/invalidProxy``
    init(_ configuration: HubConfiguration) throws(HubError) {
        var configuration = configuration
        let token = configuration.token?.trimmingCharacters(in: .whitespacesAndNewlines)
        configuration.token = token?.isEmpty == true ? nil : token
        guard let url = URL(string: configuration.endpoint), let origin = Origin(url) else {
            throw .invalidEndpoint(configuration.endpoint.publicAddress)
        }
        self.configuration = configuration
        self.origin = origin
        proxy = try configuration.proxy.map { text throws(HubError) in try HubProxy(text) }
        secrets = try HubSecrets(token: configuration.token, proxy: proxy)
    }

    /// A text from a server or a library as an error may show it.
    func shown(_ text: some StringProtocol, limit: Int = 200) -> String { secrets.shown(text, limit: limit) }

    // MARK: Requests

    /// Repeats a request until it has an answer that another attempt would not change.
    /// - Parameter path: relative to the endpoint.
    /// - Throws: ``HubError/refused(url:status:message:)``; ``Unreachable``.
    func answer<Result>(
        head: Bool = false, _ path: String, redirects: Redirects, _ body: (Answer) throws -> Result
    ) async throws -> Result {
        var attempt = 0
        while true {
            do {
                return try body(
                    try await send(head: head, path, redirects: redirects, timeout: configuration.metadataTimeout))
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
        func restart() throws {
            progress.add(-start)
            try partial.restart()
        }
        let answer = try await send(
            path, redirects: .all, from: start > 0 ? start : nil, timeout: configuration.downloadTimeout
        ) { answer in
            let isRest = answer.status == 206 && answer.header("Content-Range")?.hasPrefix("bytes \(start)-") == true
            if start > 0, !isRest {
                // The server sends another part, or the whole file: it starts again.
                try restart()
                if answer.status == 206 { throw Failure.cannotContinue }
            }
            let length = answer.header("Content-Length").flatMap { Int($0) }
            try Self.check(length ?? file.byteCount - partial.byteCount, isRest: true, of: file, partial)
            return { bytes in
                try Self.check(bytes.count, isRest: false, of: file, partial)
                try partial.append(bytes)
                progress.add(bytes.count)
            }
        }
        if start > 0, answer.status == 416 {
            try restart()
            throw Failure.cannotContinue
        }
        guard answer.isSuccess else { throw refusal(answer) }
    }

    /// Whether `count` more bytes are too many or, where they are the rest, too few.
    private static func check(_ count: Int, isRest: Bool, of file: RemoteFile, _ partial: PartialFile) throws {
        let found = partial.byteCount + count
        guard found > file.byteCount || (isRest && found < file.byteCount) else { return }
        partial.discard()
        throw HubError.wrongLength(file: file.path, expected: file.byteCount, found: found)
    }

    /// One request with its redirects. Statuses that may be temporary are thrown.
    /// - Parameter open: says where the body of a successful answer goes. Without it, the body is the answer's text.
    private func send(
        head: Bool = false, _ path: String, redirects: Redirects, from start: Int? = nil, timeout: Duration,
        open: ((Answer) throws -> Sink)? = nil
    ) async throws -> Answer {
        guard var url = URL(string: configuration.endpoint + path) else {
            throw HubError.invalidEndpoint(configuration.endpoint.publicAddress)
        }
        for _ in 0..<10 {
            var request = HTTPRequest(url.absoluteString)
            request.method = head ? "HEAD" : "GET"
            request.headers = [("User-Agent", "nibble"), ("Accept-Encoding", "identity")]
            if let start { request.headers.append(("Range", "bytes=\(start)-")) }
            if let token = configuration.token, Origin(url) == origin {
                request.headers.append(("Authorization", "Bearer \(token)"))
            }
            request.proxy = proxy
            request.connectLimit = configuration.metadataTimeout
            request.answerLimit = timeout
            request.silenceLimit = configuration.downloadTimeout
            let answer = try await perform(request, url, open)
            if answer.mayPass { throw refusal(answer) }
            guard let next = answer.location, redirects == .all || staysWithinHub(next) else { return answer }
            url = next
        }
        throw HubError.unexpectedAnswer(
            url: configuration.endpoint.publicAddress + path, expected: "a file", found: "redirects without end")
    }

    /// - Throws: failures of the network as ``Failure``, and everything else as it is.
    private func perform(_ request: HTTPRequest, _ url: URL, _ open: ((Answer) throws -> Sink)?) async throws -> Answer {
        var answer: Answer?
        var sink: Sink?
        var text: [UInt8] = []
        do {
            try await client.perform(request) { head in
                let begun = Answer(head, from: url)
                answer = begun
                if begun.isSuccess { sink = try open?(begun) }
            } body: { bytes in
                if let sink { return try sink(bytes) }
                let limit = answer?.isSuccess == true ? Self.textLimit : Self.messageLimit
                text += bytes.prefix(limit - text.count)
                if text.count == limit { throw Full() }
            }
        } catch is Full {
            if answer?.isSuccess == true {
                throw Failure(reason: "its answer is longer than \(Self.textLimit) bytes", mayPass: false)
            }
        } catch let failure as HTTPFailure {
            if Task.isCancelled { throw CancellationError() }
            // A server that has begun to answer may finish the next time. One that cannot be connected to will not be there
            // in a second.
            throw Failure(reason: shown(reason(failure)), mayPass: answer != nil || failure == .closed)
        }
        guard var answer else { throw Failure(reason: "the connection was closed", mayPass: true) }
        answer.text = String(decoding: text, as: UTF8.self)
        return answer
    }

    /// A text has all the bytes that it may have: the rest of the answer is not read.
    private struct Full: Error {}

    /// The longest list of files, and the longest message of an error.
    private static let (textLimit, messageLimit) = (64 << 20, 4096)

    private func staysWithinHub(_ url: URL) -> Bool {
        guard let target = Origin(url) else { return false }
        return target == origin || target == URL(string: HubConfiguration.publicEndpoint).flatMap(Origin.init)
    }

    // MARK: Failures

    private func refusal(_ answer: Answer) -> Failure {
        let given = answer.header("X-Error-Message") ?? ""
        let message = given.isEmpty ? answer.text : given
        let delay = answer.header("Retry-After").flatMap { Int($0) }.map { Duration.seconds(min(max($0, 0), 300)) }
        let text = message.contains("<") ? "" : message.split { $0.isNewline }.joined(separator: " ")
        return Failure(
            reason: "status \(answer.status)", mayPass: answer.mayPass, delay: delay,
            error: .refused(url: answer.address, status: answer.status, message: shown(text)))
    }

    private func reason(_ failure: HTTPFailure) -> String {
        let address = proxy?.address ?? ""
        switch failure {
        case .refusedByProxy(status: 407):
            return proxy?.user == nil
                ? "the proxy \(address) asks for a user and a password (status 407): give them as "
                    + "http://USER:PASSWORD@\(address) in the proxy variable"
                : "the proxy \(address) refuses the user and the password in the proxy variable (status 407)"
        case .refusedByProxy(let status): return "the proxy \(address) refuses to connect (status \(status))"
        case .unknownProxy: return "the proxy's host \(proxy?.host ?? "") is not known"
        default: return failure.description
        }
    }

    private func wait(_ attempt: Int, _ failure: Failure) async throws {
        let backoff = configuration.retryDelay * (1 << min(attempt, 3))
        try await Task.sleep(for: max(backoff, failure.delay ?? .zero))
    }
}
