/// Makes tokens that already occur in the row less likely (Keskar et al. 2019, CTRL). Left padding does not count.
package struct RepetitionPenaltyProcessor: LogitsProcessor {
    private let penalty: Float

    /// - Parameter penalty: above 1 discourages, below 1 encourages repetition.
    package init(penalty: Double) { self.penalty = Float(penalty) }

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        let ids = context.ids[min(context.maskStart, context.ids.count)...]
        context.scratch.forEachDistinct(ids) { scores.penalize($0, by: penalty) }
    }

    package var deviceForm: DeviceForm? { .repetitionPenalty(penalty) }
}

/// Makes tokens of the encoder's input (a decoder-only model's prompt) more likely.
package struct EncoderRepetitionPenaltyProcessor: LogitsProcessor {
    private let penalty: Float

    /// - Parameter penalty: above 1 favours the input's tokens.
    package init(penalty: Double) { self.penalty = Float(1 / penalty) }

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        context.scratch.forEachDistinct(context.encoderIds) { scores.penalize($0, by: penalty) }
    }
}

extension UnsafeMutableBufferPointer<Float> {
    fileprivate func penalize(_ token: Int, by penalty: Float) {
        guard indices.contains(token) else { return }
        self[token] = self[token] < 0 ? self[token] * penalty : self[token] / penalty
    }
}

/// Forbids tokens that would complete an n-gram for the second time.
package struct NoRepeatNgramProcessor: LogitsProcessor {
    private let size: Int

    package init(size: Int) { self.size = size }

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        scores.forbidRepeatedNgrams(of: size, after: context.ids, seenIn: context.ids)
    }
}

/// Forbids tokens that would complete an n-gram of the encoder's input.
package struct EncoderNoRepeatNgramProcessor: LogitsProcessor {
    private let size: Int

    package init(size: Int) { self.size = size }

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        scores.forbidRepeatedNgrams(of: size, after: context.ids, seenIn: context.encoderIds)
    }
}

extension UnsafeMutableBufferPointer<Float> {
    fileprivate func forbidRepeatedNgrams(
        of size: Int, after ids: UnsafeBufferPointer<Int32>, seenIn text: UnsafeBufferPointer<Int32>
    ) {
        let prefix = size - 1
        guard prefix >= 0, ids.count >= prefix, text.count >= size else { return }
        let tail = ids.count - prefix
        for start in 0...(text.count - size) {
            var matched = 0
            while matched < prefix, text[start + matched] == ids[tail + matched] { matched += 1 }
            if matched == prefix { forbid(Int(text[start + prefix])) }
        }
    }
}
