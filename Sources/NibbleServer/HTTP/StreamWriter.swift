import HTTPTypes
import Hummingbird
import NIOCore
import NibbleCore
import Synchronization

/// Writes pieces of a streamed answer.
struct StreamWriter {
    private var body: any ResponseBodyWriter
    private let channel: any Channel
    private let lastWrite: LastWrite
    private var piece: ChunkBuffer
    /// The way past all handlers, for answers that are sent in chunks.
    private var socket: NIOLoopBound<SocketHandler>?

    init(_ body: any ResponseBodyWriter, _ channel: any Channel, _ lastWrite: LastWrite) {
        self.body = body
        self.channel = channel
        self.lastWrite = lastWrite
        piece = ChunkBuffer(channel.allocator)
    }

    private var pending: ByteBuffer {
        _read { yield piece.bytes }
        _modify { yield &piece.bytes }
    }

    /// Finds the way past the handlers. On the event loop, when the head of the answer is written.
    mutating func findSocket() {
        guard channel.eventLoop.inEventLoop,
            let handler = try? channel.pipeline.syncOperations.handler(type: SocketHandler.self), handler.hasChunks
        else { return }
        socket = NIOLoopBound(handler, eventLoop: channel.eventLoop)
    }

    /// A frame of server-sent events; it leaves with the next ``flush()``.
    mutating func data(_ json: String) {
        pending.writeStaticString("data: ")
        pending.writeString(json)
        pending.writeStaticString("\n\n")
    }

    /// A frame with a text between constant JSON. A token's frame is made of parts, because putting strings together costs more than
    /// writing them.
    mutating func data(_ opening: String, text: String, _ closing: String) {
        pending.writeStaticString("data: ")
        pending.writeString(opening)
        pending.writeJSON(text)
        pending.writeString(closing)
        pending.writeStaticString("\n\n")
    }

    mutating func event(_ name: String, _ json: String) {
        pending.writeString("event: \(name)\ndata: \(json)\n\n")
    }

    mutating func text(_ text: String) { pending.writeString(text) }

    /// Sends what was written. Waits while the client does not read.
    mutating func flush() async throws {
        guard pending.readableBytes > 0 else { return }
        let piece = piece
        self.piece = ChunkBuffer(channel.allocator)
        lastWrite.set()
        // The body's writer suspends the task, and many handlers look at what it writes. Only a client that does not read needs it.
        if let socket, channel.eventLoop.inEventLoop, channel.isWritable {
            socket.value.write(piece.chunk())
        } else {
            try await body.write(piece.bytes)
        }
    }
}

extension ByteBuffer {
    /// A string in quotes.
    fileprivate mutating func writeJSON(_ text: String) {
        if text.utf8.contains(where: { $0 < 0x20 || $0 == UInt8(ascii: "\"") || $0 == UInt8(ascii: "\\") }) {
            writeString(JSONValue.string(text).encoded())
        } else {
            writeStaticString("\"")
            writeString(text)
            writeStaticString("\"")
        }
    }
}

/// When a stream was last written to.
final class LastWrite: Sendable {
    private let time = Mutex(ContinuousClock.now)

    func set() { time.withLock { $0 = .now } }

    var secondsAgo: Double { time.withLock { (ContinuousClock.now - $0) / .seconds(1) } }
}

/// The form of a stream.
struct StreamForm: Sendable {
    var contentType: String
    /// What says that the server lives.
    var ping: String
    /// How an error is told after the head was sent.
    var failure: @Sendable (APIError) -> String

    static let openAI = StreamForm(contentType: "text/event-stream", ping: ": ping\n\n") { error in
        "data: \(error.json.encoded())\n\ndata: [DONE]\n\n"
    }
}

extension AnswerSource {
    /// A streamed answer. An error ends it with an error of the stream's form.
    func response(
        _ form: StreamForm, _ configuration: ServerConfiguration,
        _ write: @escaping @Sendable (inout StreamWriter) async throws -> Void
    ) -> Response {
        let headers: HTTPFields = [
            .contentType: form.contentType, .cacheControl: "no-cache", .accelBuffering: "no",
        ]
        let body = ResponseBody { writer in
            let lastWrite = LastWrite()
            let keeper = Task { try await self.breakSilence(lastWrite, configuration.pingInterval) }
            defer {
                keeper.cancel()
                self.close()
            }
            let stream = StreamWriter(writer, self.channel, lastWrite)
            try await withTaskExecutorPreference(self.executor) {
                try await Self.fill(stream, form, write)
                try await writer.finish(nil)
            }
        }
        return Response(status: .ok, headers: headers, body: body)
    }

    private static func fill(
        _ stream: StreamWriter, _ form: StreamForm, _ write: @Sendable (inout StreamWriter) async throws -> Void
    ) async throws {
        var stream = stream
        stream.findSocket()
        do {
            try await write(&stream)
        } catch {
            let error = APIError(error)
            guard error.status.code != 499 else { throw error }
            stream.text(form.failure(error))
        }
        try await stream.flush()
    }

    /// Wakes the reader when nothing was written for long, so that it says that the server lives.
    private func breakSilence(_ lastWrite: LastWrite, _ interval: Double) async throws {
        while true {
            let rest = interval - lastWrite.secondsAgo
            if rest <= 0 { mailbox.wake() }
            try await Task.sleep(for: .seconds(rest > 0 ? rest : interval))
        }
    }
}

extension HTTPField.Name {
    static let accelBuffering = HTTPField.Name("X-Accel-Buffering")!
    static let requestID = HTTPField.Name("x-request-id")!
    static let apiKey = HTTPField.Name("x-api-key")!
    static let shouldRetry = HTTPField.Name("x-should-retry")!
}
