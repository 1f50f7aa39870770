import Foundation
import NibbleCPU
import NibbleCore
import NibbleModels

/// Measures how fast a loaded model processes prompts and decodes tokens.
package struct Benchmark {
    /// What is measured.
    package enum Test: Sendable, Hashable {
        /// A prompt of this many tokens, fed at once.
        case prompt(Int)
        /// This many tokens decoded greedily after a prompt of `depth` tokens (at least one).
        case decode(Int)
    }

    /// The rates of one test.
    package struct Result: Sendable {
        package var test: Test
        package var batch: Int
        /// Tokens a second over all rows, for each repetition.
        package var tokensPerSecond: [Double]
        /// Bytes of weights that a decode step reads. Of a mixture only the chosen experts count: as many as the batch chooses on
        /// average where all are equally likely, which is exact for one token.
        package var weightBytes: Int
        /// The device's memory bandwidth, see ``Benchmark/bandwidth``.
        package var bandwidth: Double

        package var mean: Double { tokensPerSecond.reduce(0, +) / Double(max(tokensPerSecond.count, 1)) }
        package var standardDeviation: Double {
            guard tokensPerSecond.count > 1 else { return 0 }
            let squares = tokensPerSecond.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
            return (squares / Double(tokensPerSecond.count - 1)).squareRoot()
        }
        /// The share of the bandwidth that reading the weights takes at this rate; `nil` for prompts.
        package var bandwidthFraction: Double? {
            guard case .decode = test, bandwidth > 0 else { return nil }
            return Double(weightBytes) * mean / Double(batch) / bandwidth
        }
    }

    let pretrained: PretrainedModel
    let repetitions: Int
    /// Tokens in each row's cache before decoding starts.
    private let depth: Int
    /// Bytes a second that all threads of a CPU read together, or that a GPU reads and writes while copying.
    package let bandwidth: Double
    package let bandwidthName: String
    /// Rows use them in turn.
    var adapters: [AdapterID] = []

    /// - Throws: `BackendError`
    package init(_ pretrained: PretrainedModel, repetitions: Int, depth: Int = 0) throws {
        self.pretrained = pretrained
        self.repetitions = max(repetitions, 1)
        self.depth = depth
        let backend = pretrained.weights.backend(pretrained.tree.outputEmbedding)
        if let backend = backend as? CPUBackend {
            (bandwidth, bandwidthName) = (try backend.measureReadBandwidth(), "read")
        } else {
            (bandwidth, bandwidthName) = (try Benchmark.copyBandwidth(of: backend), "copy")
        }
    }

    /// Bytes a second that a large copy reads and writes.
    private static func copyBandwidth(of backend: any Backend) throws -> Double {
        let shape: Shape = [1 << 30]
        let source = try backend.allocate(.uint8, shape)
        let destination = try backend.allocate(.uint8, shape)
        try backend.copy(source, to: destination)
        try backend.synchronize()
        var best = 0.0
        for _ in 0..<5 {
            let start = ContinuousClock.now
            for _ in 0..<4 { try backend.copy(source, to: destination) }
            try backend.synchronize()
            best = max(best, 8 * Double(shape.count) / ((ContinuousClock.now - start) / .seconds(1)))
        }
        return best
    }

    /// - Throws: what the model or its backends throw.
    package func run(_ test: Test, batch: Int) throws -> Result {
        var rates = [Double]()
        // The first run warms caches and captures graphs.
        for repetition in 0...repetitions {
            let rate =
                switch test {
                case .prompt(let tokens): try prompt(tokens, batch: batch)
                case .decode(let tokens): try decode(tokens, batch: batch)
                }
            if repetition > 0 { rates.append(rate) }
        }
        return Result(
            test: test, batch: batch, tokensPerSecond: rates, weightBytes: decodedBytes - unreadExpertBytes(batch: batch),
            bandwidth: bandwidth)
    }

    private func prompt(_ tokens: Int, batch: Int) throws -> Double {
        let session = try pretrained.model.makeSession(request(rows: batch, capacity: tokens))
        let inputs = (0..<batch).map { RowTokens(row: $0, tokens: randomTokens(tokens, seed: UInt64($0))) }
        let start = ContinuousClock.now
        _ = try session.feed(inputs, sampling: .greedy)
        return Double(tokens * batch) / ((ContinuousClock.now - start) / .seconds(1))
    }

    private func decode(_ tokens: Int, batch: Int) throws -> Double {
        let prompt = max(depth, 1)
        let session = try pretrained.model.makeSession(request(rows: batch, capacity: prompt + tokens + 3))
        var inputs = (0..<batch).map { RowTokens(row: $0, tokens: randomTokens(prompt, seed: UInt64($0))) }
        func step() throws {
            let next = try session.feed(inputs, sampling: .greedy)
            for row in inputs.indices {
                inputs[row].tokens.removeLast(inputs[row].tokens.count - 1)
                inputs[row].tokens[0] = next[row]
            }
        }
        for _ in 0..<3 { try step() }
        let start = ContinuousClock.now
        for _ in 0..<tokens { try step() }
        return Double(tokens * batch) / ((ContinuousClock.now - start) / .seconds(1))
    }

    private func request(rows: Int, capacity: Int) -> SessionRequest {
        var request = SessionRequest(rows: rows, capacity: capacity)
        request.adapters = rowAdapters(rows)
        if pretrained.isEncoderDecoder { request.encoderInputs = (0..<rows).map { randomTokens(32, seed: UInt64($0)) } }
        return request
    }

    private func randomTokens(_ count: Int, seed: UInt64) -> [Int32] {
        (0..<count).map { index in
            let number = RandomStream.uniform(seed: 1, stream: seed, counter: UInt64(index))
            return Int32(number * Float(pretrained.model.vocabularySize - 1))
        }
    }

    /// Bytes of all weights except tables that are only looked up.
    private var decodedBytes: Int {
        let total = pretrained.report.residentBytes.values.reduce(0, +)
        let tied = Set(pretrained.tree.tied.map(\.target))
        guard !tied.contains(pretrained.tree.outputEmbedding + ".weight") else { return total }
        let tables = pretrained.tree.modules.filter { $0.node.role == .tokenEmbedding }.compactMap {
            pretrained.weights.tensors[$0.path(of: "weight")]
        }
        return total - (tables.first?.byteCount ?? 0)
    }

    /// Bytes of the experts that no token of a batch chooses.
    private func unreadExpertBytes(batch: Int) -> Int {
        let mixtures = [pretrained.model.architecture.encoder, pretrained.model.architecture.decoder].compactMap(\.self).flatMap(
            \.layers
        ).compactMap { layer in
            if case .experts(let experts) = layer.feedForward { experts } else { nil }
        }
        guard let mixture = mixtures.first else { return 0 }
        let bytes = pretrained.weights.experts.values.joined().reduce(0) { sum, expert in
            sum + (expert.gateUp.layers + [expert.down]).reduce(0) { $0 + $1.weight.byteCount }
        }
        let unread = pow(1 - Double(mixture.topK) / Double(mixture.count), Double(batch))
        return Int(Double(bytes) * unread)
    }
}
