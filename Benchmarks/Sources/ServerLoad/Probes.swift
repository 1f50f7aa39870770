import Foundation
import Synchronization

/// How long streams stand still while a long prompt arrives beside them.
struct LongPromptProbe {
    let settings: Settings

    /// - Parameter words: of the prompt; about as many tokens.
    func run(words: Int) throws -> String {
        let streams = BackgroundStreams(settings.clients, settings)
        streams.waitForStart()
        sleep(5)
        let before = streams.takeGaps()
        let began = ContinuousClock.now
        let stream = try CompletionStream(Prompt(7, words: words, maxTokens: 4), port: settings.port)
        _ = try stream.nextPiece()
        let seconds = (ContinuousClock.now - began) / .seconds(1)
        while try stream.nextPiece() {}
        usleep(300_000)
        let beside = streams.takeGaps()
        streams.stop()
        return """
            {"streams": \(settings.clients), "prompt_words": \(words), "gaps_before_ms": \(Results.percentiles(before)), \
            "gaps_beside_ms": \(Results.percentiles(beside)), "prompt_first_token_s": \(String(format: "%.2f", seconds))}
            """
    }
}

/// How long a request lives in the engine after its client has gone. `/metrics` is asked until the request is in none of its
/// gauges: what is reported includes the time of a question, so the truth is a little less.
struct CancelProbe {
    let settings: Settings

    private enum Moment: String, CaseIterable {
        /// Between two tokens of a stream.
        case decoding
        /// While its prompt is read.
        case prompt
        /// While it decodes for an answer that is not streamed.
        case plain
        /// Behind requests that fill all slots.
        case queue
    }

    /// - Parameter count: requests that are left at each moment.
    func run(count: Int) throws -> String {
        var lines: [String] = []
        let open = [Moment.decoding, .prompt, .plain]
        for (moments, clients) in [(open, settings.clients - 1), ([.queue], settings.clients)] {
            let streams = BackgroundStreams(clients, settings)
            streams.waitForStart()
            usleep(500_000)
            _ = streams.takeGaps()
            for moment in moments {
                let times = try (0..<count).map { try leave(moment, $0, beside: clients) }
                lines.append(
                    "\"\(moment.rawValue)\": {\"gone_after_ms\": \(Results.percentiles(times)), "
                        + "\"steps_ms\": \(Results.percentiles(streams.takeGaps()))}")
            }
            streams.stop()
            while try openRequests() > 0 { usleep(10_000) }
        }
        return "{\"clients\": \(settings.clients), \"times\": \(count), \(lines.joined(separator: ", "))}"
    }

    /// Starts a request and leaves it.
    /// - Returns: the seconds from closing the connection to the request being gone.
    private func leave(_ moment: Moment, _ index: Int, beside others: Int) throws -> Double {
        var random = FixedRandom(state: UInt64(index + 1))
        let words = moment == .prompt ? 1500 : settings.promptWords
        let prompt = Prompt(
            2_000_000 + Int.random(in: 0..<1_000_000, using: &random), words: words, maxTokens: 1000,
            isStreamed: moment != .plain)
        var connection: Connection? = try Connection(port: settings.port)
        try connection?.send("POST", "/v1/completions", prompt.body)
        while try openRequests() <= others { usleep(1000) }
        if moment == .decoding {
            while let line = try connection?.line(), !line.hasPrefix("data:") {}
        }
        usleep(UInt32.random(in: 0..<200_000, using: &random))
        let left = ContinuousClock.now
        connection = nil
        while try openRequests() > others { usleep(1000) }
        return (ContinuousClock.now - left) / .seconds(1)
    }

    /// Requests that run or wait.
    private func openRequests() throws -> Int {
        try Connection.get("/metrics", port: settings.port).split(separator: "\n").reduce(0) { sum, line in
            guard line.contains("num_requests_running{") || line.contains("num_requests_waiting{") else { return sum }
            return sum + Int(line.split(separator: " ").last.flatMap { Double($0) } ?? 0)
        }
    }
}
