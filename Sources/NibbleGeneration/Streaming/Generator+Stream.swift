internal import NibbleCore

/// What a stream of a generation delivers.
public enum GenerationEvent: Sendable {
    /// A token was chosen.
    case token(GeneratedToken)
    /// The last event.
    case finished(GenerationOutput)
}

extension Generator {
    /// Generates on the model's thread. Cancelling the task ends the generation at the next token, or within the prompt.
    ///
    /// - Throws: what ``generate(_:onToken:)`` throws; `CancellationError`.
    package func output(of request: GenerationRequest) async throws -> GenerationOutput {
        let flag = CancellationFlag()
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                thread.add(GenerationRun(self, request, flag) { continuation.resume(with: $0) })
            }
        } onCancel: {
            flag.set()
        }
    }

    /// Generates on the model's thread and delivers tokens as they are chosen; with beams, only the finished output.
    ///
    /// The generation pauses while `buffering` events are unread. Cancelling the reading task, or dropping the stream, ends it at
    /// the next token, or within the prompt.
    package func stream(
        _ request: GenerationRequest, buffering: Int = 32
    ) -> AsyncThrowingStream<GenerationEvent, any Error> {
        let reader = GenerationReader(self, request, capacity: max(buffering, 1))
        return AsyncThrowingStream { try await reader.next() }
    }
}

/// The events of a generation that its reader has not seen.
private struct UnreadEvents: MailboxContent {
    let capacity: Int
    var events: [GenerationEvent] = []
    var isPaused = false

    mutating func takeNews() -> GenerationEvent? { events.isEmpty ? nil : events.removeFirst() }

    /// Pauses where there is no room.
    mutating func pauses() -> Bool {
        isPaused = events.count >= capacity
        return isPaused
    }

    /// Ends a pause when half of the room is free.
    mutating func resumes() -> Bool {
        guard isPaused, events.count <= capacity / 2 else { return false }
        isPaused = false
        return true
    }
}

/// The one reader of a generation. Letting go of it ends the generation.
private final class GenerationReader: Sendable {
    private let mailbox: Mailbox<UnreadEvents>
    private let run: GenerationRun
    private let flag: CancellationFlag
    private let thread: GenerationThread

    init(_ generator: Generator, _ request: GenerationRequest, capacity: Int) {
        let mailbox = Mailbox(UnreadEvents(capacity: capacity))
        let post: @Sendable (GenerationEvent) -> Void = { event in
            mailbox.withContent { $0.events.append(event) }
            mailbox.wakeReader()
        }
        let mode = generator.config(request).mode
        var onToken: (@Sendable (GeneratedToken) -> Void)?
        if mode == .greedy || mode == .sampling { onToken = { post(.token($0)) } }
        let mustPause: @Sendable () -> Bool = { mailbox.withContent { $0.pauses() } }
        let flag = CancellationFlag()
        run = GenerationRun(generator, request, flag, onToken: onToken, mustPause: mustPause) { result in
            switch result {
            case .success(let output):
                post(.finished(output))
                mailbox.close()
            case .failure(let error): mailbox.close(throwing: error)
            }
        }
        self.flag = flag
        self.mailbox = mailbox
        thread = generator.thread
        thread.add(run)
    }

    deinit { flag.set() }

    func next() async throws -> GenerationEvent? {
        try await withTaskCancellationHandler {
            let event = try await mailbox.next()
            if mailbox.withContent({ $0.resumes() }) { thread.add(run) }
            return event
        } onCancel: {
            flag.set()
        }
    }
}
