import NIOCore
import NIOPosix

/// Answers every request with a body that never ends.
final class EndlessServer: Sendable {
    private let channel: any Channel

    /// - Parameter status: `200 OK`
    init(_ status: String) async throws {
        channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Handler(status)) }
            }
            .bind(host: "127.0.0.1", port: 0).get()
    }

    var endpoint: String { "http://127.0.0.1:\(channel.localAddress?.port ?? 0)" }

    func stop() async throws { try await channel.close() }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        private let status: String

        init(_ status: String) { self.status = status }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let head = "HTTP/1.1 \(status)\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
            context.write(wrapOutboundOut(ByteBuffer(string: head)), promise: nil)
            Handler.fill(context.channel)
        }

        func channelWritabilityChanged(context: ChannelHandlerContext) { Handler.fill(context.channel) }

        /// Later, so that a write which ends at once does not call this again from within.
        private static func fill(_ channel: any Channel) {
            channel.eventLoop.execute {
                guard channel.isActive, channel.isWritable else { return }
                channel.writeAndFlush(ByteBuffer(repeating: 32, count: 1 << 20), promise: nil)
                fill(channel)
            }
        }
    }
}
