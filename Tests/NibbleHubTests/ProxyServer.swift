import NIOCore
import NIOPosix
import Synchronization

/// An HTTP proxy on loopback: answers CONNECT, and relays to one port whatever host was asked for.
final class ProxyServer: Sendable {
    struct Connect: Sendable, Equatable {
        var target: String
        var authorization: String?
    }

    /// The port that connections are relayed to.
    fileprivate let target: Int
    /// The value of `Proxy-Authorization` without which the answer is 407.
    private let required: String?
    private let log = Mutex<[Connect]>([])
    private let channel: Mutex<(any Channel)?> = Mutex(nil)

    init(target: Int, requiring required: String? = nil) async throws {
        self.target = target
        self.required = required
        let server = try await ServerBootstrap(group: .singletonMultiThreadedEventLoopGroup)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(ConnectHandler(self))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        channel.withLock { $0 = server }
    }

    var port: Int { channel.withLock { $0?.localAddress?.port } ?? 0 }

    var connects: [Connect] { log.withLock { $0 } }

    /// - Returns: whether the connection is made.
    fileprivate func accept(_ head: String) -> Bool {
        let lines = head.split { $0.isNewline }
        let prefix = "proxy-authorization: "
        let authorization = lines.first { $0.lowercased().hasPrefix(prefix) }.map { String($0.dropFirst(prefix.count)) }
        let words = lines.first?.split(separator: " ") ?? []
        log.withLock { $0.append(Connect(target: words.count > 1 ? String(words[1]) : "", authorization: authorization)) }
        return required == nil || authorization == required
    }
}

/// Reads the request's head, then relays bytes in both directions. Runs on its channel's event loop only.
private final class ConnectHandler: ChannelInboundHandler, @unchecked Sendable {
    typealias InboundIn = ByteBuffer

    private let server: ProxyServer
    private var head = ""
    private var partner: (any Channel)?

    init(_ server: ProxyServer) { self.server = server }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let bytes = unwrapInboundIn(data)
        if let partner { return partner.writeAndFlush(bytes, promise: nil) }
        head += String(buffer: bytes)
        guard head.utf8.suffix(4).elementsEqual("\r\n\r\n".utf8) else { return }
        let channel = context.channel
        guard server.accept(head) else {
            let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
            return channel.writeAndFlush(ByteBuffer(string: refusal), promise: nil)
        }
        ClientBootstrap(group: channel.eventLoop)
            .channelInitializer { other in
                other.eventLoop.makeCompletedFuture { try other.pipeline.syncOperations.addHandler(Relay(to: channel)) }
            }
            .connect(host: "127.0.0.1", port: server.target)
            .whenSuccess { other in
                self.partner = other
                channel.writeAndFlush(ByteBuffer(string: "HTTP/1.1 200 Connection established\r\n\r\n"), promise: nil)
            }
    }

    func channelInactive(context: ChannelHandlerContext) { partner?.close(promise: nil) }
}

private final class Relay: ChannelInboundHandler, Sendable {
    typealias InboundIn = ByteBuffer

    private let target: any Channel

    init(to target: any Channel) { self.target = target }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        target.writeAndFlush(unwrapInboundIn(data), promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) { target.close(promise: nil) }
}
