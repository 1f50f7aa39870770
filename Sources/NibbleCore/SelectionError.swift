/// Why a ``SlotSelection`` or a mask cannot be written.
package struct SelectionError: Error, Hashable, Sendable {
    /// The property that is wrong.
    package let field: String
    package let expected: String
    package let found: String

    static func token(_ token: Int32, in field: String, vocabulary: Int) -> SelectionError {
        SelectionError(field: field, expected: "tokens of 0 ..< \(vocabulary)", found: "\(token)")
    }
}

extension SelectionError: CustomStringConvertible {
    package var description: String { "\(field): expected \(expected), found \(found)" }
}

/// What ``Backend/select(_:_:slots:counters:into:)`` gives in place of a token.
package enum SelectionStatus: Int32, Error, Sendable, CaseIterable {
    /// Every logit is −∞ after the adjustments.
    case nothingAllowed = -1
    /// A logit is NaN.
    case notANumber = -2
    /// The row belongs to no slot: its slot number is negative or too large.
    case noSlot = -3
}

extension SlotSelection {
    package var hasPenalties: Bool { repetitionPenalty != 1 || presencePenalty != 0 || frequencyPenalty != 0 }

    /// Checks everything that does not depend on the vocabulary.
    package func check() throws(SelectionError) {
        try expect(temperature >= 0 && temperature.isFinite, "temperature", "a finite number ≥ 0", temperature)
        try expect(topK >= 0, "topK", "a number ≥ 0", topK)
        try expect(topP > 0 && topP <= 1, "topP", "a number > 0 and ≤ 1", topP)
        try expect(minP >= 0 && minP <= 1, "minP", "a number of 0 ... 1", minP)
        try expect(
            repetitionPenalty > 0 && repetitionPenalty.isFinite, "repetitionPenalty", "a finite number > 0", repetitionPenalty)
        try expect(presencePenalty.isFinite, "presencePenalty", "a finite number", presencePenalty)
        try expect(frequencyPenalty.isFinite, "frequencyPenalty", "a finite number", frequencyPenalty)
        try expect(minimumTokens >= 0, "minimumTokens", "a number ≥ 0", minimumTokens)
    }

    /// Entries of a slot's bias buffers.
    struct BiasEntries {
        /// One entry for each token.
        var bias: [TokenBias] = []
        var ends: [Int32] = []
        var isEmpty: Bool { bias.isEmpty && ends.isEmpty }
    }

    /// The values of a token that occurs several times are added. End tokens beyond the vocabulary, which configurations may
    /// name, cannot be chosen anyway.
    func biasEntries(vocabulary: Int) throws(SelectionError) -> BiasEntries {
        var sums: [Int32: Float] = [:]
        for entry in bias {
            guard entry.token >= 0 && entry.token < vocabulary else {
                throw .token(entry.token, in: "bias", vocabulary: vocabulary)
            }
            sums[entry.token, default: 0] += entry.value
            let sum = sums[entry.token] ?? 0
            try expect(sum < .infinity && entry.value < .infinity, "bias", "values that are finite or −∞", entry.value)
        }
        let tokens = sums.keys.sorted()
        var entries = BiasEntries(bias: tokens.map { TokenBias(token: $0, value: sums[$0] ?? 0) })
        if minimumTokens > 0 { entries.ends = Set(endTokens).filter { $0 >= 0 && $0 < vocabulary }.sorted() }
        let count = entries.bias.count + entries.ends.count
        try expect(count <= SelectionState.biasLimit, "bias", "at most \(SelectionState.biasLimit) tokens", count)
        return entries
    }

    private func expect(
        _ condition: Bool, _ field: String, _ expected: String, _ found: some CustomStringConvertible
    ) throws(SelectionError) {
        guard condition else { throw SelectionError(field: field, expected: expected, found: found.description) }
    }
}
