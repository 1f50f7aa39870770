import NibbleCore

/// Captured decode steps of one session, by everything that is baked into a launch.
///
/// Positions, lengths, tokens, tables and counters are device buffers, so one graph serves every step with the same rows
/// until a launch bound is outgrown.
final class StepGraphs {
    struct Key: Hashable {
        private let rows: [Int]
        private let launchLength: Int
        private let rotary: [Int]
        private let sampling: SamplingParameters

        init(rows: [Int], call: StackRunner.Call, rotary: [Int], sampling: SamplingParameters) {
            self.rows = rows
            launchLength = call.launchLength ?? call.maximumLength
            self.rotary = rotary
            var sampling = sampling
            // The counter comes from a device buffer.
            sampling.step = 0
            self.sampling = sampling
        }
    }

    private enum State {
        /// Run once operation by operation: tables are made and workspace is grown outside of a capture.
        case warm
        case captured(any CapturedGraph)
    }

    private let backend: any Backend
    private var states: [Key: State] = [:]
    private var isSupported = true

    /// Graphs kept before the oldest bounds are forgotten.
    private static let limit = 16

    /// `nil` unless all of `backends` are one device other than the CPU.
    init?(backends: [any Backend]) {
        guard let first = backends.first, first.device != .cpu, backends.allSatisfy({ $0 === first }) else { return nil }
        backend = first
    }

    /// Forgets every graph: the buffers they were captured with are gone.
    func removeAll() { states = [:] }

    /// The bound that launches are sized for: the next power of two, at least 256.
    func launchLength(_ length: Int, capacity: Int) -> Int {
        var bound = 256
        while bound < length { bound *= 2 }
        return max(min(bound, capacity), length)
    }

    /// Runs `body` for a step with `key`: as a graph from the second time on.
    func step(_ key: Key, _ body: () throws -> Void) throws {
        switch states[key] {
        case .captured(let graph):
            try graph.launch()
        case .warm where isSupported:
            if states.count > StepGraphs.limit { states = [:] }
            if let graph = try backend.capture(body) {
                states[key] = .captured(graph)
                try graph.launch()
            } else {
                isSupported = false
                try body()
            }
        default:
            try body()
            states[key] = .warm
        }
    }
}
