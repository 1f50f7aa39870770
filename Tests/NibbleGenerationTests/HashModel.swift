import Foundation
import NibbleCore
import NibbleModels
import Synchronization

/// A small deterministic language model: the logits of a position are a hash of all tokens of its row up to there (and of
/// the encoder's input).
///
/// The session keeps the tokens themselves where a real one keeps keys and values, so that any wrong feed, gather or
/// truncation changes what comes out.
final class HashModel: GenerativeModel {
    let vocabularySize: Int
    let isEncoderDecoder: Bool
    let maximumPositions: Int?
    let seed: UInt64
    /// How far logits spread.
    let spread: Float
    /// How many of the last tokens the logits depend on.
    let memory: Int
    /// The number of tokens from which on one logit is NaN.
    let poisonedLength: Int
    /// How often its sessions were fed, and how many tokens.
    let feeds = Atomic(0)
    let fedTokens = Atomic(0)

    init(
        vocabularySize: Int = 24, isEncoderDecoder: Bool = false, maximumPositions: Int? = nil, seed: UInt64 = 1,
        spread: Float = 6, memory: Int = .max, poisonedLength: Int = .max
    ) {
        self.vocabularySize = vocabularySize
        self.isEncoderDecoder = isEncoderDecoder
        self.maximumPositions = maximumPositions
        self.seed = seed
        self.spread = spread
        self.memory = memory
        self.poisonedLength = poisonedLength
    }

    func makeSession(_ request: SessionRequest) throws -> any DecodingSession { HashSession(self, request) }

    /// The logits that follow `tokens`.
    func logits(_ tokens: [Int32], encoder: [Int32] = []) -> [Float] {
        var state = RandomStream.mix(seed)
        for token in encoder + [-1] + tokens.suffix(memory) { state = RandomStream.mix(state ^ UInt64(bitPattern: Int64(token))) }
        return (0..<vocabularySize).map { token in
            if token == 5, tokens.count >= poisonedLength { return .nan }
            let bits = RandomStream.mix(state ^ UInt64(token + 1) << 32)
            return (Float(bits >> 40) * 0x1p-24 - 0.5) * spread
        }
    }
}

final class HashSession: DecodingSession {
    private let model: HashModel
    private let request: SessionRequest
    private(set) var held: [[Int32]]
    /// How often each kind of call was made.
    private(set) var gathers = 0

    init(_ model: HashModel, _ request: SessionRequest) {
        self.model = model
        self.request = request
        held = Array(repeating: [], count: request.rows)
    }

    var vocabularySize: Int { model.vocabularySize }
    var rows: Int { request.rows }
    var capacity: Int { request.capacity }
    func length(ofRow row: Int) -> Int { held[row].count }
    func tokens(ofRow row: Int) -> [Int32] { held[row] }

    private func encoder(_ row: Int) -> [Int32] {
        guard model.isEncoderDecoder else { return [] }
        return request.encoderInputs[request.encoderGroup.isEmpty ? row : request.encoderGroup[row]]
    }

    private func append(_ input: RowTokens, _ each: ([Float]) -> Void) throws {
        guard input.row < rows else { throw SessionError.rowOutOfRange(row: input.row, rows: rows) }
        for token in input.tokens {
            guard held[input.row].count < capacity else {
                throw SessionError.capacityExceeded(
                    row: input.row, length: held[input.row].count, adding: 1, capacity: capacity)
            }
            guard token >= 0, Int(token) < vocabularySize else {
                throw SessionError.tokenOutOfRange(token: token, vocabularySize: vocabularySize)
            }
            held[input.row].append(token)
            each(model.logits(held[input.row], encoder: encoder(input.row)))
        }
    }

    private func count(_ inputs: [RowTokens]) {
        model.feeds.add(1, ordering: .relaxed)
        model.fedTokens.add(inputs.reduce(0) { $0 + $1.tokens.count }, ordering: .relaxed)
    }

    func feed<Result>(
        _ inputs: [RowTokens], logits: LogitsSelection, _ body: (LogitsBatch) throws -> Result
    ) throws -> Result {
        count(inputs)
        var values: [Float] = []
        for input in inputs {
            var rows: [[Float]] = []
            try append(input) { rows.append($0) }
            switch logits {
            case .last: values += rows.last ?? []
            case .all: values += rows.flatMap { $0 }
            }
        }
        let rows = values.count / vocabularySize
        return try values.withUnsafeMutableBufferPointer {
            try body(LogitsBatch(rows: rows, vocabularySize: vocabularySize, values: $0))
        }
    }

    /// What a backend does, in the plainest words.
    func feed(_ inputs: [RowTokens], sampling: SamplingParameters) throws -> [Int32] {
        count(inputs)
        return try inputs.map { input in
            var last: [Float] = []
            try append(input) { last = $0 }
            for token in Set(held[input.row]) {
                let score = last[Int(token)]
                last[Int(token)] = score < 0 ? score * sampling.repetitionPenalty : score / sampling.repetitionPenalty
            }
            for token in sampling.forbiddenTokens where last.indices.contains(Int(token)) { last[Int(token)] = -.infinity }
            guard !last.contains(where: \.isNaN), last.contains(where: { $0 > -.infinity }) else { return -1 }
            let u = RandomStream.uniform(
                seed: sampling.seed, stream: sampling.firstStream + UInt64(input.row), counter: sampling.step)
            return Int32(NaiveSampling.pick(last, sampling, u))
        }
    }

    func gather(_ sources: [Int]) throws {
        gathers += 1
        held = sources.map { held[$0] }
    }

    func truncate(row: Int, to length: Int) throws {
        held[row].removeLast(held[row].count - length)
    }
}

/// Selection written with full sorts, to compare with.
enum NaiveSampling {
    static func softmax(_ scores: [Float]) -> [Double] {
        let maximum = Double(scores.max() ?? 0)
        let weights = scores.map { exp(Double($0) - maximum) }
        let sum = weights.reduce(0, +)
        return weights.map { $0 / sum }
    }

    static func argmax(_ scores: [Float]) -> Int {
        scores.indices.reduce(0) { scores[$1] > scores[$0] ? $1 : $0 }
    }

    static func topP(_ scores: [Float], _ p: Double) -> [Float] {
        let probabilities = softmax(scores)
        let order = scores.indices.sorted { (scores[$0], $0) < (scores[$1], $1) }
        var result = scores
        var sum = 0.0
        for index in order.dropLast() {
            sum += probabilities[index]
            if sum <= 1 - p { result[index] = -.infinity }
        }
        return result
    }

    static func topK(_ scores: [Float], _ k: Int) -> [Float] {
        let least = scores.sorted(by: >)[min(k, scores.count) - 1]
        return scores.map { $0 < least ? -.infinity : $0 }
    }

    static func minP(_ scores: [Float], _ fraction: Double) -> [Float] {
        let probabilities = softmax(scores)
        let bound = fraction * (probabilities.max() ?? 0)
        return zip(scores, probabilities).map { $1 < bound ? -.infinity : $0 }
    }

    static func draw(_ probabilities: [Double], _ u: Float) -> Int {
        var sum = 0.0
        for (index, probability) in probabilities.enumerated() {
            sum += probability
            if sum > Double(u) { return index }
        }
        return probabilities.lastIndex { $0 > 0 } ?? 0
    }

    static func pick(_ logits: [Float], _ parameters: SamplingParameters, _ u: Float) -> Int {
        guard parameters.temperature > 0 else { return argmax(logits) }
        var scores = logits.map { $0 / parameters.temperature }
        if parameters.topK > 0 { scores = topK(scores, parameters.topK) }
        if parameters.topP < 1 { scores = topP(scores, Double(parameters.topP)) }
        if parameters.minP > 0 { scores = minP(scores, Double(parameters.minP)) }
        return draw(softmax(scores), u)
    }
}
