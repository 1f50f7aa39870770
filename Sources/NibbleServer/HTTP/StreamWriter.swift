import HTTPTypes
import Hummingbird
import NIOCore
import Synchronization

/// When a stream was last written to.
final class WriteProgress: Sendable {
    private struct State {
        var last = ContinuousClock.now
        var isWriting = false
    }

    private let state = Mutex(State())

    func begin() {
        state.withLock {
            $0.isWriting = true
            $0.last = .now
        }
    }

    func end() {
        state.withLock {
            $0.isWriting = false
            $0.last = .now
        }
    }

    /// Whether a write is under way, and for how long nothing has happened.
    var standstill: (isWriting: Bool, seconds: Double) {
        state.withLock { ($0.isWriting, (ContinuousClock.now - $0.last) / .seconds(1)) }
    }
}

/// Writes pieces of a streamed answer.
struct StreamWriter {
    private var body: any ResponseBodyWriter
    private let progress: WriteProgress
    private var pending = ByteBuffer()

    init(_ body: any ResponseBodyWriter, _ progress: WriteProgress) {
        self.body = body
        self.progress = progress
    }

    /// A frame of server-sent events; it leaves with the next ``flush()``.
    mutating func data(_ json: String) {
        pending.writeStaticString("data: ")
        pending.writeString(json)
        pending.writeStaticString("\n\n")
    }

    mutating func event(_ name: String, _ json: String) {
        pending.writeString("event: \(name)\ndata: \(json)\n\n")
    }

    mutating func text(_ text: String) { pending.writeString(text) }

    mutating func flush() async throws {
        guard pending.readableBytes > 0 else { return }
        let piece = pending
        pending = ByteBuffer()
        progress.begin()
        defer { progress.end() }
        try await body.write(piece)
    }
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
            let progress = WriteProgress()
            let keeper = Task { try await self.watch(progress, configuration) }
            defer {
                keeper.cancel()
                self.close()
            }
            let stream = StreamWriter(writer, progress)
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
        do {
            try await write(&stream)
        } catch {
            let error = APIError(error)
            guard error.status.code != 499 else { throw error }
            stream.text(form.failure(error))
        }
        try await stream.flush()
    }

    /// Wakes the writer in long silence, and takes a reader that reads nothing for gone.
    private func watch(_ progress: WriteProgress, _ configuration: ServerConfiguration) async throws {
        let interval = min(configuration.pingInterval, configuration.writeTimeout / 4)
        while true {
            try await Task.sleep(for: .seconds(interval))
            let (isWriting, seconds) = progress.standstill
            if isWriting, seconds > configuration.writeTimeout {
                end(APIError.disconnected)
                channel.close(promise: nil)
                return
            }
            if !isWriting, seconds >= configuration.pingInterval * 0.9 { mailbox.wake() }
        }
    }
}

extension HTTPField.Name {
    static let accelBuffering = HTTPField.Name("X-Accel-Buffering")!
    static let requestID = HTTPField.Name("x-request-id")!
    static let apiKey = HTTPField.Name("x-api-key")!
    static let shouldRetry = HTTPField.Name("x-should-retry")!
}
