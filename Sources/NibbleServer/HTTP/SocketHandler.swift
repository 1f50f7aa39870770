import NIOCore

/// Stands next to the socket. It says when bytes come, before they are read as HTTP, and writes pieces of streamed answers past the
/// handlers between, whose share would be a quarter of a token's cost.
final class SocketHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = IOData

    private let bytesCame: () -> Void
    private var context: ChannelHandlerContext?
    /// Whether streamed answers are sent in chunks.
    var hasChunks = true

    init(bytesCame: @escaping () -> Void) { self.bytesCame = bytesCame }

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }
    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        bytesCame()
        context.fireChannelRead(data)
    }

    /// Sends a chunk of an answer whose head is written and whose length is not known. On the event loop only.
    func write(_ chunk: ByteBuffer) { context?.writeAndFlush(Self.wrapOutboundOut(.byteBuffer(chunk)), promise: nil) }
}

/// A piece of a streamed answer, with room for what makes it a chunk.
struct ChunkBuffer {
    /// `FFFFFFFF`, and the end of the line.
    private static let room = 10
    private static let digits = Array("0123456789abcdef".utf8)

    var bytes: ByteBuffer

    init(_ allocator: ByteBufferAllocator) {
        bytes = allocator.buffer(capacity: 512)
        bytes.moveWriterIndex(to: Self.room)
        bytes.moveReaderIndex(to: Self.room)
    }

    /// The piece between its length and the end of a line.
    consuming func chunk() -> ByteBuffer {
        var length = bytes.readableBytes
        bytes.writeStaticString("\r\n")
        var start = Self.room - 2
        _ = bytes.setStaticString("\r\n", at: start)
        repeat {
            start -= 1
            bytes.setInteger(Self.digits[length & 15], at: start)
            length >>= 4
        } while length > 0
        bytes.moveReaderIndex(to: start)
        return bytes
    }
}
