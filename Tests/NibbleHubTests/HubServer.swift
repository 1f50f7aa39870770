import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import NibbleHub
import Synchronization

/// A server on loopback that answers as the Hub does. Large files are handed to a second port, as the Hub hands them to its storage.
final class HubServer: Sendable {
    struct File: Sendable {
        var content: [UInt8]
        /// Kept in the storage, named by SHA-256.
        var isLarge = false
        /// The header `ETag` of a small file, where it is not the Hub's.
        var tag: String?

        var etag: String {
            var hash = ContentHash(etag: String(repeating: "0", count: isLarge ? 64 : 40), byteCount: content.count)
            content.withUnsafeBytes { hash?.update($0) }
            return hash?.text ?? ""
        }
    }

    struct Repository: Sendable {
        var files: [String: File]
        var commit = "0123456789abcdef0123456789abcdef01234567"
        var revisions = ["main"]
        /// Needs this token to read files.
        var gate: String?
        /// Needs this token to see that it exists.
        var privateToken: String?
    }

    /// What goes wrong with one answer.
    enum Trouble: Sendable {
        case status(Int, headers: [(String, String)] = [])
        /// Closes the connection after so many bytes of the body.
        case cut(after: Int)
        /// Sends so many bytes less than it should, and says so.
        case shortened(by: Int)
        /// Sends another byte in place of the first.
        case altered
        /// Ignores Range.
        case wholeFile
        case elsewhere(String)
    }

    struct Request: Sendable {
        var method: String
        var path: String
        var isStorage: Bool
        var authorization: String?
        var range: String?
    }

    private struct State {
        var repositories: [String: Repository] = [:]
        /// By what the path ends with; used up from the front.
        var troubles: [String: [Trouble]] = [:]
        var requests: [Request] = []
        var delay: TimeAmount?
    }

    private let state = Mutex(State())
    private let hub: Mutex<(any Channel)?> = Mutex(nil)
    private let storage: Mutex<(any Channel)?> = Mutex(nil)

    init() async throws {
        let (main, store) = (try await listen(isStorage: false), try await listen(isStorage: true))
        hub.withLock { $0 = main }
        storage.withLock { $0 = store }
    }

    func stop() async throws {
        try await hub.withLock { $0 }?.close()
        try await storage.withLock { $0 }?.close()
    }

    private func listen(isStorage: Bool) async throws -> any Channel {
        try await ServerBootstrap(group: .singletonMultiThreadedEventLoopGroup)
            .serverChannelOption(.backlog, value: 64)
            .childChannelInitializer { channel in
                channel.pipeline.configureHTTPServerPipeline().flatMapThrowing {
                    try channel.pipeline.syncOperations.addHandler(HubHandler(server: self, isStorage: isStorage))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
    }

    var endpoint: String { Self.address(hub) }

    var port: Int { hub.withLock { $0?.localAddress?.port } ?? 0 }

    private var storageAddress: String { Self.address(storage) }

    private static func address(_ channel: borrowing Mutex<(any Channel)?>) -> String {
        "http://127.0.0.1:\(channel.withLock { $0?.localAddress?.port } ?? 0)"
    }

    // MARK: What it holds

    func add(_ repository: Repository, as name: String) { state.withLock { $0.repositories[name] = repository } }

    func change(_ name: String, _ body: (inout Repository) -> Void) {
        state.withLock { if $0.repositories[name] != nil { body(&$0.repositories[name]!) } }
    }

    /// The next answers to paths that end with `suffix`: for GET requests of the hub, or of the storage where the file is large.
    func trouble(_ suffix: String, _ troubles: Trouble...) { state.withLock { $0.troubles[suffix, default: []] += troubles } }

    /// Lets bodies wait before they are sent.
    func delay(_ amount: TimeAmount) { state.withLock { $0.delay = amount } }

    var requests: [Request] { state.withLock(\.requests) }

    func forgetRequests() { state.withLock { $0.requests = [] } }

    // MARK: Answers

    struct Answer: Sendable {
        var status = HTTPResponseStatus.ok
        var headers = HTTPHeaders()
        var body: [UInt8] = []
        /// Close after so many bytes of the body.
        var cut: Int?
        var delay: TimeAmount?

        static func error(_ status: Int, _ code: String? = nil, _ message: String = "") -> Answer {
            var answer = Answer(status: HTTPResponseStatus(statusCode: status))
            if let code { answer.headers.add(name: "X-Error-Code", value: code) }
            if !message.isEmpty { answer.headers.add(name: "X-Error-Message", value: message) }
            return answer
        }
    }

    func answer(_ head: HTTPRequestHead, isStorage: Bool) -> Answer {
        let range = head.headers.first(name: "Range")
        let token = head.headers.first(name: "Authorization").map { String($0.dropFirst("Bearer ".count)) }
        return state.withLock { state in
            state.requests.append(
                Request(
                    method: head.method.rawValue, path: head.uri, isStorage: isStorage,
                    authorization: head.headers.first(name: "Authorization"), range: range))
            let path = head.uri.split(separator: "?")[0].removingPercentEncoding ?? ""
            var trouble: Trouble?
            let isRedirectedLater = !isStorage && Self.file(path, state)?.isLarge == true
            if head.method == .GET, !isRedirectedLater, let suffix = state.troubles.keys.first(where: { path.hasSuffix($0) }),
                state.troubles[suffix]?.isEmpty == false
            {
                trouble = state.troubles[suffix]?.removeFirst()
            }
            if case .status(let status, let headers)? = trouble {
                var answer = Answer.error(status)
                for (name, value) in headers { answer.headers.add(name: name, value: value) }
                return answer
            }
            if case .elsewhere(let address)? = trouble {
                var answer = Answer.error(302)
                answer.headers.add(name: "Location", value: address)
                return answer
            }
            var answer =
                isStorage ? fromStorage(path, range, state, trouble) : fromHub(head.method, path, range, token, state, trouble)
            if head.method == .GET { answer.delay = state.delay }
            if case .cut(let after)? = trouble { answer.cut = after }
            return answer
        }
    }

    private static func file(_ path: String, _ state: State) -> File? {
        for (name, repository) in state.repositories where path.hasPrefix("/\(name)/resolve/") {
            let rest = path.dropFirst("/\(name)/resolve/".count)
            for revision in repository.revisions + [repository.commit] where rest.hasPrefix(revision + "/") {
                return repository.files[String(rest.dropFirst(revision.count + 1))]
            }
        }
        return nil
    }

    private func fromHub(
        _ method: HTTPMethod, _ path: String, _ range: String?, _ token: String?, _ state: State, _ trouble: Trouble?
    ) -> Answer {
        if path.hasPrefix("/api/models/") { return listing(String(path.dropFirst("/api/models/".count)), token, state) }
        guard let (name, repository) = state.repositories.first(where: { path.hasPrefix("/\($0.key)/resolve/") }) else {
            return .error(401, nil, "Invalid username or password.")
        }
        if let refusal = refusal(repository, token, isFile: true) { return refusal }
        guard let file = Self.file(path, state) else {
            let rest = path.dropFirst("/\(name)/resolve/".count)
            let isKnown = (repository.revisions + [repository.commit]).contains { rest.hasPrefix($0 + "/") }
            return .error(404, isKnown ? "EntryNotFound" : "RevisionNotFound")
        }
        var headers: HTTPHeaders = ["X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"]
        if file.isLarge {
            headers.add(name: "ETag", value: "\"storage-\(file.content.count)\"")
            headers.add(name: "X-Linked-Etag", value: "\"\(file.etag)\"")
            headers.add(name: "X-Linked-Size", value: "\(file.content.count)")
            headers.add(name: "Location", value: storageAddress + path + "?signature=secret")
            return Answer(status: .found, headers: headers)
        }
        headers.add(name: "ETag", value: file.tag ?? "W/\"\(file.etag)\"")
        return content(file, range, headers, trouble)
    }

    private func refusal(_ repository: Repository, _ token: String?, isFile: Bool) -> Answer? {
        if let secret = repository.privateToken, token != secret {
            return token == nil
                ? .error(401, "RepoNotFound", "Repository not found") : .error(404, "RepoNotFound", "Repository not found")
        }
        if isFile, let gate = repository.gate, token != gate {
            return .error(token == nil ? 401 : 403, "GatedRepo", "Access is restricted")
        }
        return nil
    }

    private func listing(_ path: String, _ token: String?, _ state: State) -> Answer {
        let parts = path.components(separatedBy: "/revision/")
        guard parts.count == 2, let repository = state.repositories[parts[0]] else {
            return .error(401, nil, "Invalid username or password.")
        }
        if token == "expired" { return .error(401, nil, "Invalid credentials in Authorization header") }
        if let refusal = refusal(repository, token, isFile: false) { return refusal }
        guard (repository.revisions + [repository.commit]).contains(parts[1]) else {
            return .error(404, "RevisionNotFound", "Invalid rev id")
        }
        let siblings = repository.files.keys.sorted().map { "{\"rfilename\": \"\($0)\"}" }.joined(separator: ", ")
        let json = "{\"id\": \"\(parts[0])\", \"sha\": \"\(repository.commit)\", \"siblings\": [\(siblings)]}"
        return Answer(
            headers: ["Content-Type": "application/json", "Content-Length": "\(json.utf8.count)"], body: Array(json.utf8))
    }

    private func fromStorage(_ path: String, _ range: String?, _ state: State, _ trouble: Trouble?) -> Answer {
        guard let file = Self.file(path, state) else { return .error(404) }
        return content(file, range, ["ETag": "\"storage-\(file.content.count)\""], trouble)
    }

    private func content(_ file: File, _ range: String?, _ headers: HTTPHeaders, _ trouble: Trouble?) -> Answer {
        var answer = Answer(headers: headers, body: file.content)
        var start = range.flatMap { Int($0.dropFirst("bytes=".count).dropLast()) }
        if case .wholeFile? = trouble { start = nil }
        if let start {
            guard start < file.content.count else { return .error(416) }
            answer.status = .partialContent
            answer.body = Array(file.content[start...])
            answer.headers.add(name: "Content-Range", value: "bytes \(start)-\(file.content.count - 1)/\(file.content.count)")
        }
        switch trouble {
        case .shortened(let count)?: answer.body.removeLast(count)
        case .altered?: answer.body[0] ^= 1
        default: break
        }
        answer.headers.add(name: "Content-Length", value: "\(answer.body.count)")
        return answer
    }
}

private final class HubHandler: ChannelInboundHandler, Sendable {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let server: HubServer
    private let isStorage: Bool

    init(server: HubServer, isStorage: Bool) {
        self.server = server
        self.isStorage = isStorage
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard case .head(let head) = unwrapInboundIn(data) else { return }
        let answer = server.answer(head, isStorage: isStorage)
        let loop = context.eventLoop
        let bound = NIOLoopBound(context, eventLoop: loop)
        var headers = answer.headers
        if !headers.contains(name: "Content-Length") { headers.add(name: "Content-Length", value: "\(answer.body.count)") }
        let response = HTTPResponseHead(version: head.version, status: answer.status, headers: headers)
        let isHead = head.method == .HEAD
        func send() {
            let context = bound.value
            context.write(wrapOutboundOut(.head(response)), promise: nil)
            let body = isHead ? [] : answer.cut.map { Array(answer.body.prefix($0)) } ?? answer.body
            context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: body)))), promise: nil)
            if answer.cut != nil, !isHead {
                context.flush()
                context.close(promise: nil)
            } else {
                context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
            }
        }
        guard let delay = answer.delay else { return send() }
        loop.assumeIsolated().scheduleTask(in: delay) { send() }
    }
}
