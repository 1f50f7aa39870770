import Synchronization

/// What the server has counted since its start.
final class ServerMetrics: Sendable {
    struct HTTPKey: Hashable, Sendable {
        var handler: String
        var method: String
        var status: Int
    }

    struct Values: Sendable {
        var requests: [HTTPKey: Int] = [:]
        var finished: [String: Int] = ["stop": 0, "length": 0, "abort": 0, "error": 0]
        var rate = EndRate()
        var promptTokens = 0
        var generationTokens = 0
        /// One for each ``HistogramName``.
        private(set) var histograms = HistogramName.allCases.map { Histogram($0.bounds) }

        mutating func observe(_ name: HistogramName, _ value: Double) { histograms[name.rawValue].observe(value) }
    }

    private let state = Mutex(Values())

    var values: Values { state.withLock { $0 } }

    func answered(_ key: HTTPKey) { state.withLock { $0.requests[key, default: 0] += 1 } }

    func began(_ source: AnswerSource) {
        state.withLock { values in
            values.promptTokens += source.promptTokens
            values.observe(.promptTokens, Double(source.promptTokens))
            values.observe(.maxTokens, Double(source.jobs[0].maxNewTokens))
            values.observe(.choices, Double(source.choicesPerPrompt))
        }
    }

    /// A token has come, `seconds` after the request or after the token before it.
    func token(_ name: HistogramName, _ seconds: Double) {
        state.withLock { values in
            values.generationTokens += 1
            values.observe(name, seconds)
        }
    }

    func embedded(tokens: Int) { state.withLock { $0.promptTokens += tokens } }

    /// An answer has come to its end.
    func finished(reason: String, _ times: ChoiceTimes, submitted: ContinuousClock.Instant) {
        state.withLock { values in
            values.finished[reason, default: 0] += 1
            values.rate.ended(at: .now)
            guard let began = times.began, let first = times.firstToken, let last = times.lastToken else { return }
            for (name, duration) in [
                (HistogramName.queueTime, began - submitted), (.prefillTime, first - began), (.decodeTime, last - first),
                (.inferenceTime, last - began),
            ] { values.observe(name, duration / .seconds(1)) }
        }
    }

    /// An answer was given up: the client has gone, the server stops, or something failed.
    func abandoned(reason: String, count: Int) { state.withLock { $0.finished[reason, default: 0] += count } }

    /// Seconds after which a request that finds `waiting` others in the queue may find room.
    func retryAfter(waiting: Int) -> Int { state.withLock { $0.rate.secondsToEnd(waiting, at: .now) } }

    func ended(_ source: AnswerSource, completionTokens: Int) {
        let seconds = (ContinuousClock.now - source.started) / .seconds(1)
        state.withLock { values in
            values.observe(.requestLatency, seconds)
            values.observe(.generationTokens, Double(completionTokens))
        }
    }
}
