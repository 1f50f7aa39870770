import Foundation

/// What a stream of a generation delivers.
public enum GenerationEvent: Sendable {
    /// A token was chosen.
    case token(GeneratedToken)
    /// The last event.
    case finished(GenerationOutput)
}

extension Generator {
    /// Generates on a thread of its own and delivers tokens as they are chosen; with beams, only the finished output.
    ///
    /// The thread waits while `buffering` events are unread. Cancelling the reading task, or dropping the stream, ends the
    /// generation at the next token, or within the prompt.
    package func stream(
        _ request: GenerationRequest, buffering: Int = 32
    ) -> AsyncThrowingStream<GenerationEvent, any Error> {
        let channel = BoundedChannel<GenerationEvent>(capacity: buffering)
        let thread = Thread { produce(request, into: channel) }
        thread.name = "nibble.generate"
        // Leaves room for the caller's processors and criteria.
        thread.stackSize = 8 << 20
        thread.start()
        let consumer = ChannelConsumer(channel)
        return AsyncThrowingStream { try await consumer.channel.next() }
    }

    private func produce(_ request: GenerationRequest, into channel: BoundedChannel<GenerationEvent>) {
        var request = request
        let given = request.interruption
        request.interruption = {
            try channel.checkCancellation()
            try given?()
        }
        request.stopping.append { _ in
            try channel.checkCancellation()
            return false
        }
        let config = GenerationConfig.resolved(call: request.config, given: request.baseConfig, model: modelConfig)
        let streams = config.mode == .greedy || config.mode == .sampling
        do {
            let output = try generate(request, onToken: streams ? { try channel.send(.token($0)) } : nil)
            try channel.send(.finished(output))
            channel.finish()
        } catch {
            channel.finish(throwing: error)
        }
    }
}

/// Ends the producer when the stream that holds it is released.
private final class ChannelConsumer: Sendable {
    let channel: BoundedChannel<GenerationEvent>

    init(_ channel: BoundedChannel<GenerationEvent>) { self.channel = channel }

    deinit { channel.cancel() }
}
