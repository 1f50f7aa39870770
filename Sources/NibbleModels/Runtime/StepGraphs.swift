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
        private let isSplit: Bool

        /// - Parameter isSplit: whether the host does something between the blocks and the choice of tokens.
        package init(_ call: BatchShape, rotary: [Int], isSplit: Bool = false) {
            rows = call.rows
            launchLength = call.launchLength ?? call.maximumLength
            self.rotary = rotary
            self.isSplit = isSplit
        }
    }

    private enum State {
        /// Run once without a graph, so that tables are made and workspace is grown before a capture.
        case warm
        case captured([(any CapturedGraph)?], kept: [Tensor])
    }

    /// A part of a step on one device, which is captured; or one that is run every time, such as a copy between devices.
    package struct Segment {
        let backend: (any Backend)?
        let body: () throws -> Void

        /// - Parameter backend: where all operations of `body` run; `nil`: it is not captured.
        package init(on backend: (any Backend)?, _ body: @escaping () throws -> Void) {
            self.backend = backend
            self.body = body
        }
    }

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

    /// `nil` if one of `backends` is a CPU, or there is none.
    package init?(backends: [any Backend]) {
        guard !backends.isEmpty, backends.allSatisfy({ $0.device != .cpu }) else { return nil }
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

    /// Runs the segments of a step with `key`: as graphs from the second time on.
    ///
    /// - Parameter buffers: makes and gives the buffers that captured segments use and the session may replace later. Asked
    ///   before a capture, within which nothing can be copied from the host.
    package func step(_ key: Key, _ segments: [Segment], keeping buffers: () throws -> [Tensor]) throws {
        switch states[key] {
        case .captured(let graphs, _):
            for (segment, graph) in zip(segments, graphs) {
                if let graph { try graph.launch() } else { try segment.body() }
            }
        case .warm where isSupported:
            let kept = try buffers()
            let graphs = try segments.map { segment in try segment.backend?.capture(segment.body) }
            isSupported = !zip(segments, graphs).contains { $0.backend != nil && $1 == nil }
            if isSupported { states[key] = .captured(graphs, kept: kept) }
            try step(key, segments, keeping: buffers)
        default:
            for segment in segments { try segment.body() }
            if states.count >= StepGraphs.limit { states.removeAll(keepingCapacity: true) }
            states[key] = .warm
        }
    }
}
