import NIOCore
import NIOHTTP1

/// Answers requests of HTTP/1.0 in that version: it knows no chunks, so that the end of the connection is the end of an answer.
final class VersionObserver: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart

    private let socket: SocketHandler

    init(_ socket: SocketHandler) { self.socket = socket }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if socket.hasChunks, case .head(let head) = Self.unwrapInboundIn(data), head.version.major == 1, head.version.minor == 0 {
            socket.hasChunks = false
            try? context.pipeline.syncOperations.addHandler(OldVersionWriter(), position: .before(self))
        }
        context.fireChannelRead(data)
    }
}

private final class OldVersionWriter: ChannelOutboundHandler {
    typealias OutboundIn = HTTPServerResponsePart
    typealias OutboundOut = HTTPServerResponsePart

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        switch Self.unwrapOutboundIn(data) {
        case .head(let head) where head.status == .continue: promise?.succeed()
        case .head(var head):
            head.version = .http1_0
            head.headers.replaceOrAdd(name: "connection", value: "close")
            context.write(Self.wrapOutboundOut(.head(head)), promise: promise)
        case .body: context.write(data, promise: promise)
        case .end:
            let written = promise ?? context.eventLoop.makePromise()
            let channel = context.channel
            written.futureResult.whenComplete { _ in channel.close(promise: nil) }
            context.write(data, promise: written)
        }
    }
}
