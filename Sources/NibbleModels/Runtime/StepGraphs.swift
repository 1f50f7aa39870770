package import NibbleCore

/// Captured decode steps, by everything that is baked into a launch.
///
/// Positions, lengths, tokens, tables, counters and how tokens are chosen are device buffers, so one graph serves every step
/// of as many rows until a launch bound is outgrown. A graph knows buffers by their addresses only: it keeps those that may be
/// replaced for as long as it may be launched.
package final class StepGraphs {
    package struct Key: Hashable {
        private let rows: Int
        private let launchLength: Int
        private let rotary: [Int]

        package init(_ call: BatchShape, rotary: [Int]) {
            rows = call.rows
            launchLength = call.launchLength ?? call.maximumLength
            self.rotary = rotary
        }
    }

    private enum State {
        /// Run once without a graph, so that tables are made and workspace is grown before a capture.
        case warm
        case captured(any CapturedGraph, kept: [Tensor])
    }

    private let backend: any Backend
    private var states: [Key: State] = [:]
    private var isSupported = true

    /// Steps that are remembered. When there are more, all are forgotten.
    package static let limit = 64
    /// Steps have as many rows as one of these, the last of them padding. Beyond the last, multiples of 64.
    private static let rowCounts = [1, 2, 4, 8, 12, 16, 24, 32, 48, 64]

    /// The number of rows, at most `limit`, to which a step of `rows` rows is padded.
    package static func paddedRows(_ rows: Int, limit: Int) -> Int {
        min(rowCounts.first { $0 >= rows } ?? (rows + 63) / 64 * 64, limit)
    }

    /// `nil` unless all of `backends` are one device other than the CPU.
    package init?(backends: [any Backend]) {
        guard let first = backends.first, first.device != .cpu, backends.allSatisfy({ $0 === first }) else { return nil }
        backend = first
    }

    /// Forgets every graph: the buffers they were captured with are gone.
    func removeAll() { states = [:] }

    /// The bound that launches are sized for: the next power of two, at least 256.
    package func launchLength(_ length: Int, capacity: Int) -> Int {
        var bound = 256
        while bound < length { bound *= 2 }
        return max(min(bound, capacity), length)
    }

    func isCaptured(_ key: Key) -> Bool {
        if case .captured = states[key] { true } else { false }
    }

    /// Enqueues a captured step once more.
    func launch(_ key: Key) throws {
        guard case .captured(let graph, _) = states[key] else { preconditionFailure("the step was not captured") }
        try graph.launch()
    }

    /// Runs `body` for a step with `key`: as a graph from the second time on.
    ///
    /// - Parameter buffers: makes and gives the buffers that `body` uses and the session may replace later. Asked before a
    ///   capture, within which nothing can be copied from the host.
    package func step(_ key: Key, keeping buffers: () throws -> [Tensor], _ body: () throws -> Void) throws {
        switch states[key] {
        case .captured(let graph, _):
            try graph.launch()
        case .warm where isSupported:
            let kept = try buffers()
            if let graph = try backend.capture(body) {
                states[key] = .captured(graph, kept: kept)
                try graph.launch()
            } else {
                isSupported = false
                try body()
            }
        default:
            try body()
            if states.count >= StepGraphs.limit { states.removeAll(keepingCapacity: true) }
            states[key] = .warm
        }
    }
}
