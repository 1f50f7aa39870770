/// Counts values by upper bounds.
struct Histogram: Sendable {
    let bounds: [Double]
    private(set) var counts: [Int]
    private(set) var sum = 0.0
    private(set) var count = 0

    init(_ bounds: [Double]) {
        self.bounds = bounds
        counts = Array(repeating: 0, count: bounds.count)
    }

    /// - Parameter counts: one for each bound, and one for what lies beyond all.
    init(_ bounds: [Double], counts: [Int], sum: Double) {
        self.bounds = bounds
        self.counts = Array(counts.prefix(bounds.count))
        self.sum = sum
        count = counts.reduce(0, +)
    }

    mutating func observe(_ value: Double) {
        sum += value
        count += 1
        if let index = bounds.firstIndex(where: { value <= $0 }) { counts[index] += 1 }
    }
}

/// The histograms of a server by the names that vLLM's dashboards read.
enum HistogramName: Int, CaseIterable, Sendable {
    case timeToFirstToken
    case interTokenLatency
    case requestLatency
    case queueTime
    case prefillTime
    case decodeTime
    case inferenceTime
    case promptTokens
    case generationTokens
    case maxTokens
    case choices

    var text: String {
        switch self {
        case .timeToFirstToken: "time_to_first_token_seconds"
        case .interTokenLatency: "inter_token_latency_seconds"
        case .requestLatency: "e2e_request_latency_seconds"
        case .queueTime: "request_queue_time_seconds"
        case .prefillTime: "request_prefill_time_seconds"
        case .decodeTime: "request_decode_time_seconds"
        case .inferenceTime: "request_inference_time_seconds"
        case .promptTokens: "request_prompt_tokens"
        case .generationTokens: "request_generation_tokens"
        case .maxTokens: "request_params_max_tokens"
        case .choices: "request_params_n"
        }
    }

    var help: String {
        switch self {
        case .timeToFirstToken: "Seconds from a request's arrival to its first token."
        case .interTokenLatency: "Seconds between the tokens of an answer."
        case .requestLatency: "Seconds from a request's arrival to its end."
        case .queueTime: "Seconds that an answer waited for a slot."
        case .prefillTime: "Seconds from an answer's start in a slot to its first token."
        case .decodeTime: "Seconds from an answer's first token to its last."
        case .inferenceTime: "Seconds from an answer's start in a slot to its last token."
        case .promptTokens: "Tokens of a request's prompts."
        case .generationTokens: "Tokens of a request's answers."
        case .maxTokens: "Token limits of requests."
        case .choices: "Answers that requests ask for."
        }
    }

    var bounds: [Double] {
        switch self {
        case .timeToFirstToken:
            [
                0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640,
                2560,
            ]
        case .interTokenLatency: [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80]
        case .requestLatency, .queueTime, .prefillTime, .decodeTime, .inferenceTime:
            [
                0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
            ]
        case .promptTokens, .generationTokens, .maxTokens:
            [
                1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000,
            ]
        case .choices: [1, 2, 5, 10, 20]
        }
    }
}
