import HTTPTypes
import NIOCore
import NIOHTTP1
import NIOHTTPTypes
import NIOHTTPTypesHTTP1

/// Closes a connection whose client keeps the server waiting: for the rest of a head or a body, however slowly it comes, or for the
/// reading of an answer. Tells clients whose bytes are no HTTP what is wrong.
///
/// One timer serves all limits. It is set for the first of them, and set anew when it fires, so that most requests cost none.
final class ConnectionLimits: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    private let readTime: TimeAmount
    private let writeTime: TimeAmount
    private let table: ConnectionTable
    private var connection: ConnectionState?
    private var entry = ConnectionTable.Entry.taken
    /// Until when the request that has begun must be whole.
    private var readDeadline: NIODeadline?
    /// Until when the client must have read something, and how many bytes it has not read by now.
    private var stall: (deadline: NIODeadline, unread: Int)?
    private var timer: (task: Scheduled<Void>, deadline: NIODeadline)?
    /// Requests whose heads have come and whose answers are not written.
    private var openRequests = 0
    private var parserError: HTTPParserError?
    /// Whether an answer of our own has taken the place of what is written from now on.
    private var isReplaced = false
    /// Whether an answer says that the connection ends. What the client still sends is read for a second, so that it can read the answer.
    private var isLast = false

    /// - Parameters:
    ///   - readTime: seconds for the head of a request, and again for its body.
    ///   - writeTime: seconds in which a client must read something.
    init(readTime: Double, writeTime: Double, table: ConnectionTable) {
        self.readTime = .nanoseconds(Int64(readTime * 1e9))
        self.writeTime = .nanoseconds(Int64(writeTime * 1e9))
        self.table = table
    }

    func handlerAdded(context: ChannelHandlerContext) {
        let pipeline = context.pipeline.syncOperations
        let socket = SocketHandler { [weak self] in self?.bytesCame(context) }
        try? pipeline.addHandler(socket, position: .first)
        if let codec = try? pipeline.handler(type: HTTP1ToHTTPServerCodec.self) {
            try? pipeline.addHandler(VersionObserver(socket), position: .before(codec))
        }
    }

    // MARK: Connections

    func channelActive(context: ChannelHandlerContext) {
        let connection = ConnectionState(context.channel)
        self.connection = connection
        entry = table.enter(connection)
        switch entry {
        case .taken:
            readDeadline = .now() + readTime
            schedule(context)
        case .refused: refuse(context)
        case .closed: context.close(promise: nil)
        }
        context.fireChannelActive()
    }

    func channelInactive(context: ChannelHandlerContext) {
        timer?.task.cancel()
        if let connection { table.leave(connection, entry) }
        connection = nil
        context.fireChannelInactive()
    }

    /// Answers before anything was asked.
    private func refuse(_ context: ChannelHandlerContext) {
        let error = APIError(
            .serviceUnavailable, "the server has as many connections as it may have", type: "overloaded",
            code: "too_many_connections")
        write(error, context)
        context.channel.close(after: 1)
    }

    private func write(_ error: APIError, _ context: ChannelHandlerContext) {
        let body = ByteBuffer(string: error.json.encoded())
        let fields: HTTPFields = [
            .contentType: "application/json", .contentLength: "\(body.readableBytes)", .connection: "close",
        ]
        context.write(Self.wrapOutboundOut(.head(HTTPResponse(status: error.status, headerFields: fields))), promise: nil)
        context.write(Self.wrapOutboundOut(.body(body)), promise: nil)
        context.writeAndFlush(Self.wrapOutboundOut(.end(nil)), promise: nil)
    }

    // MARK: Requests

    private func bytesCame(_ context: ChannelHandlerContext) {
        guard readDeadline == nil, case .taken = entry else { return }
        readDeadline = .now() + readTime
        schedule(context)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard case .taken = entry else { return }
        switch Self.unwrapInboundIn(data) {
        case .head(var head):
            openRequests += 1
            readDeadline = .now() + readTime
            // Hummingbird looks for this very word.
            if let options = head.headerFields[.connection], options.lowercased().contains("close") {
                head.headerFields[.connection] = "close"
                return context.fireChannelRead(Self.wrapInboundOut(.head(head)))
            }
        case .body: break
        case .end:
            readDeadline = nil
            connection?.setWaiting(false)
        }
        context.fireChannelRead(data)
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        switch Self.unwrapOutboundIn(data) {
        case .body: break
        case .head(let head):
            isLast = isLast || head.headerFields[.connection] == "close"
            guard let parserError, head.status == .badRequest else { break }
            // The answer that comes has no body. This one takes its place.
            self.parserError = nil
            write(APIError(parserError), context)
            isReplaced = true
        case .end:
            openRequests = max(openRequests - 1, 0)
            if openRequests == 0 { connection?.setWaiting(true) }
            if isLast { context.channel.close(after: 1) }
        }
        guard !isReplaced else {
            promise?.succeed()
            return
        }
        context.write(data, promise: promise)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if let error = error as? HTTPParserError, parserError == nil { parserError = error }
        context.fireErrorCaught(error)
    }

    // MARK: Time

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        stall = context.channel.isWritable ? nil : (.now() + writeTime, unreadBytes(context))
        schedule(context)
        context.fireChannelWritabilityChanged()
    }

    private func unreadBytes(_ context: ChannelHandlerContext) -> Int {
        (try? context.channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
    }

    private func schedule(_ context: ChannelHandlerContext) {
        guard let first = [readDeadline, stall?.deadline].compactMap({ $0 }).min() else { return }
        if let timer {
            guard first < timer.deadline else { return }
            timer.task.cancel()
        }
        let task = context.eventLoop.assumeIsolated().scheduleTask(deadline: first) { self.check(context) }
        timer = (task, first)
    }

    private func check(_ context: ChannelHandlerContext) {
        timer = nil
        guard context.channel.isActive else { return }
        let now = NIODeadline.now()
        if let deadline = readDeadline, deadline <= now {
            // The head of a further request may come while an answer is written.
            guard openRequests > 0, connection?.waitingSince == nil else { return context.close(promise: nil) }
            readDeadline = now + readTime
        }
        if let (deadline, before) = stall, deadline <= now {
            let unread = unreadBytes(context)
            guard unread < before else { return context.close(promise: nil) }
            stall = (now + writeTime, unread)
        }
        schedule(context)
    }
}

extension APIError {
    init(_ error: HTTPParserError) {
        switch error {
        case .headerOverflow:
            self.init(
                .requestHeaderFieldsTooLarge, "the head of the request is too large", code: "headers_too_large")
        default: self.init(.badRequest, "the request is no HTTP: \(error)", code: "invalid_http")
        }
    }
}
