package import NibbleCore
public import NibbleModels

/// Changes the scores from which a row's next token is chosen.
///
/// `scores` are float32, one for each token of the vocabulary (V): logits for greedy decoding and sampling, log-probabilities
/// in the beam modes. −∞ forbids a token. A processor is a value without memory between calls, so that rows may be
/// reordered, rolled back or left out at any step.
public protocol LogitsProcessor: Sendable {
    func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) throws

    /// All rows of a step at once, `contexts[i]` belonging to row i of `batch`. Only processors for which rows depend on
    /// one another implement it.
    func process(_ batch: LogitsBatch, _ contexts: [RowContext]) throws

    /// The step of a backend's token selection that has the same effect, if there is one.
    var deviceForm: DeviceForm? { get }
}

extension LogitsProcessor {
    /// Processes one row after the other.
    public func process(_ batch: LogitsBatch, _ contexts: [RowContext]) throws {
        for (index, context) in contexts.enumerated() { try process(batch[index], context) }
    }

    /// `nil`: the processor runs on the host.
    public var deviceForm: DeviceForm? { nil }
}

/// What a backend's own token selection can do, in the order in which it does it.
public enum DeviceForm: Sendable, Equatable {
    /// Of the tokens a row holds.
    case repetitionPenalty(Float)
    /// Tokens that are never chosen. May occur more than once.
    case forbidden([Int32])
    /// Divides the scores.
    case temperature(Float)
    /// Keeps the k best tokens.
    case topK(Int)
    /// Keeps the fewest tokens whose probabilities sum to p.
    case topP(Float)
    /// Keeps tokens with this share of the best one's probability.
    case minP(Float)

    fileprivate var rank: Int {
        switch self {
        // These two may come in any order.
        case .repetitionPenalty, .forbidden: 0
        case .temperature: 1
        case .topK: 2
        case .topP: 3
        case .minP: 4
        }
    }
}

/// One row as processors and stopping criteria see it. Valid only during the call it is handed to.
public struct RowContext {
    /// The tokens so far: prompt (with its padding) and what was generated; for an encoder-decoder the decoder's tokens.
    public let ids: UnsafeBufferPointer<Int32>
    /// Length of the prompt, padding included (L).
    public let promptLength: Int
    /// Where the row begins behind its left padding.
    public let maskStart: Int
    /// The row among all rows that are decoded side by side (batch × beams or returned sequences).
    public let row: Int
    /// The encoder's ids with their padding; for a decoder-only model the prompt.
    public let encoderIds: UnsafeBufferPointer<Int32>
    /// Memory that processors share, so that no step allocates any.
    package let scratch: ScoreScratch

    package init(
        ids: UnsafeBufferPointer<Int32>, promptLength: Int, maskStart: Int = 0, row: Int = 0,
        encoderIds: UnsafeBufferPointer<Int32>? = nil, scratch: ScoreScratch
    ) {
        self.ids = ids
        self.promptLength = promptLength
        self.maskStart = maskStart
        self.row = row
        self.encoderIds = encoderIds ?? UnsafeBufferPointer(rebasing: ids.prefix(promptLength))
        self.scratch = scratch
    }
}

/// The processors of a generation, in the order in which they are applied.
package struct LogitsProcessorList: Sendable {
    package var processors: [any LogitsProcessor]

    package init(_ processors: [any LogitsProcessor] = []) { self.processors = processors }

    package func process(_ batch: LogitsBatch, _ contexts: [RowContext]) throws {
        for processor in processors { try processor.process(batch, contexts) }
    }

    /// The parameters of a selection on the device that is equivalent to all processors followed by a draw (or, without
    /// `sampling`, an argmax); `nil` if a processor can only run on the host.
    package func deviceParameters(sampling: Bool) -> SamplingParameters? {
        var parameters = SamplingParameters()
        if sampling { parameters.temperature = 1 }
        var rank = 0
        for processor in processors {
            guard let form = processor.deviceForm, form.rank == 0 ? rank == 0 : sampling && form.rank > rank else { return nil }
            rank = form.rank
            switch form {
            case .repetitionPenalty(let value):
                guard parameters.repetitionPenalty == 1 else { return nil }
                parameters.repetitionPenalty = value
            case .forbidden(let tokens): parameters.forbiddenTokens += tokens
            case .temperature(let value): parameters.temperature = value
            case .topK(let value): parameters.topK = value
            case .topP(let value): parameters.topP = value
            case .minP(let value): parameters.minP = value
            }
        }
        guard parameters.forbiddenTokens.count <= SelectionState.biasLimit else { return nil }
        return parameters
    }
}
