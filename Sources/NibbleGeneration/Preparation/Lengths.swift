/// The maximum and minimum length of the sequences of one generation, prompt included.
struct Lengths {
    var maximum: Int
    var minimum: Int
    var warnings: [GenerationWarning] = []

    /// - Parameter prompt: L, padding included; for an encoder-decoder the decoder's.
    init(_ config: GenerationConfig, prompt: Int, positions: Int?) throws {
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
            if let positions { maximum = min(maximum, positions) }
            warnings.append(.defaultLength(newTokens: max(maximum - prompt, 0)))
        }
        guard prompt < maximum else { throw GenerationError.promptTooLong(length: prompt, maximum: maximum) }
        noteImpossible(config, positions: positions)
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
