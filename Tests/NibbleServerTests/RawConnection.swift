import NIOCore
import NIOPosix

/// A connection that sends bytes as they are, for requests that no client should send.
struct RawConnection: Sendable {
    let channel: any Channel
    private let received: AsyncStream<ByteBuffer>

    init(_ port: Int) async throws {
        let (stream, continuation) = AsyncStream.makeStream(of: ByteBuffer.self)
        received = stream
        channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Receiver(continuation))
                }
            }
            .connect(host: "127.0.0.1", port: port).get()
    }

    /// A server that has answered may have closed the connection.
    func send(_ text: String) async { try? await channel.writeAndFlush(ByteBuffer(string: text)) }

    /// Reads until the answer holds `text`, or the other side closes.
    func read(until text: String? = nil) async -> String {
        var answer = ""
        for await buffer in received {
            answer += String(buffer: buffer)
            if let text, answer.contains(text) { break }
        }
        return answer
    }

    func stopReading() async throws { try await channel.setOption(.autoRead, value: false).get() }
    func close() async { try? await channel.close() }

    private final class Receiver: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let continuation: AsyncStream<ByteBuffer>.Continuation

        init(_ continuation: AsyncStream<ByteBuffer>.Continuation) { self.continuation = continuation }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) { continuation.yield(Self.unwrapInboundIn(data)) }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
        func channelInactive(context: ChannelHandlerContext) { continuation.finish() }
    }
}
