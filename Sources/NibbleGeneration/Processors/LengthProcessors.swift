import Foundation

/// Forbids eos until a sequence has `length` tokens, prompt included.
package struct MinLengthProcessor: LogitsProcessor {
    private let length: Int
    private let eos: [Int32]

    package init(_ length: Int, eos: [Int32]) {
        self.length = length
        self.eos = eos
    }

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        if context.ids.count < length { scores.forbid(eos) }
    }
}

/// Forbids eos until a sequence has `count` new tokens.
package struct MinNewTokensProcessor: LogitsProcessor {
    private let count: Int
    private let eos: [Int32]

    package init(_ count: Int, eos: [Int32]) {
        self.count = count
        self.eos = eos
    }

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        if context.ids.count - context.promptLength < count { scores.forbid(eos) }
    }
}

/// Forces the token after the first one.
package struct ForcedBosProcessor: LogitsProcessor {
    private let token: Int32

    package init(_ token: Int32) { self.token = token }

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        if context.ids.count == 1 { scores.forbidAll(but: [token]) }
    }
}

/// Forces the last token that fits.
package struct ForcedEosProcessor: LogitsProcessor {
    private let tokens: [Int32]
    private let maxLength: Int

    package init(_ tokens: [Int32], maxLength: Int) {
        self.tokens = tokens
        self.maxLength = maxLength
    }

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        if context.ids.count == maxLength - 1 { scores.forbidAll(but: tokens) }
    }
}

/// Replaces scores that are not finite: NaN by 0, infinities by the largest and smallest number.
package struct InfNanRemoveProcessor: LogitsProcessor {
    package init() {}

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        for index in scores.indices where !scores[index].isFinite {
            let score = scores[index]
            scores[index] = score.isNaN ? 0 : score > 0 ? .greatestFiniteMagnitude : -.greatestFiniteMagnitude
        }
    }
}

/// Raises the score of eos more and more once a sequence has grown beyond a length.
package struct ExponentialDecayProcessor: LogitsProcessor {
    private let decay: ExponentialDecay
    private let eos: [Int32]

    package init(_ decay: ExponentialDecay, eos: [Int32]) {
        self.decay = decay
        self.eos = eos
    }

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        let (beyond, overflow) = (context.ids.count - context.promptLength).subtractingReportingOverflow(decay.start)
        guard beyond > 0, !overflow else { return }
        let growth = Float(pow(decay.factor, Double(beyond)) - 1)
        for id in eos where scores.indices.contains(Int(id)) && scores[Int(id)].isFinite {
            scores[Int(id)] += abs(scores[Int(id)]) * growth
        }
    }
}

/// Turns scores into log-probabilities.
package struct LogitNormalizationProcessor: LogitsProcessor {
    package init() {}

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) { scores.normalizeLogarithms() }
}
