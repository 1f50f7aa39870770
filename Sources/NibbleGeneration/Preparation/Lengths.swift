/// The maximum and minimum length of the sequences of one generation, prompt included.
package struct Lengths {
    package var maximum: Int
    package var minimum: Int
    package var warnings: [GenerationWarning] = []

    /// - Parameters:
    ///   - prompt: L, padding included; for an encoder-decoder the decoder's.
    ///   - positions: what the model was made for. Beyond it there is a warning.
    ///   - limit: the positions that the model has embeddings for, if they are a table. Sequences end there: the last token
    ///     needs no position, since it is not fed.
    package init(_ config: GenerationConfig, prompt: Int, positions: Int?, limit: Int? = nil) throws {
        maximum = 0
        minimum = config.minNewTokens.map { Self.sum(prompt, $0) } ?? config.minLength ?? 0
        if let newTokens = config.maxNewTokens {
            maximum = Self.sum(prompt, newTokens)
            if let length = config.maxLength {
                warnings.append(.bothLengthsGiven(maxLength: length, maxNewTokens: newTokens))
            }
        } else if let length = config.maxLength {
            maximum = min(length, Self.limit)
        } else {
            maximum = prompt + GenerationConfig.defaultNewTokens
            if let positions, prompt < positions { maximum = min(maximum, positions) }
            warnings.append(.defaultLength(newTokens: max(maximum - prompt, 0)))
        }
        if let limit {
            guard prompt <= limit else { throw GenerationError.promptTooLong(length: prompt, maximum: limit) }
            if maximum > limit + 1 {
                warnings.append(.cutToPositions(length: maximum, positions: limit))
                maximum = limit + 1
            }
        }
        guard prompt < maximum else { throw GenerationError.promptTooLong(length: prompt, maximum: maximum) }
        noteImpossible(config, positions: limit == nil ? positions : nil)
    }

    private mutating func noteImpossible(_ config: GenerationConfig, positions: Int?) {
        if minimum > maximum {
            let field = config.minNewTokens == nil ? "min_length" : "min_new_tokens"
            warnings.append(.impossibleMinimum(field: field, minimum: minimum, maximum: maximum))
        }
        if let positions, maximum > positions {
            warnings.append(.beyondModelPositions(length: maximum, positions: positions))
        }
    }

    /// Backends hold positions as 32-bit numbers.
    private static let limit = Int(Int32.max)

    private static func sum(_ a: Int, _ b: Int) -> Int {
        let (sum, overflow) = a.addingReportingOverflow(b)
        return overflow ? limit : min(sum, limit)
    }
}
