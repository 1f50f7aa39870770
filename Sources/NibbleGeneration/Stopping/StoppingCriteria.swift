/// A caller's own condition: true ends the row. Called after each new token of the row.
public typealias StoppingCriterion = @Sendable (RowContext) throws -> Bool

/// Why a row ended.
public enum FinishReason: Sendable, Equatable {
    /// The row chose this end token.
    case endOfSequence(Int32)
    /// The text of the row ends with this stop string.
    case stopString(String)
    /// The row has its maximum length.
    case maxLength
    /// The time ran out.
    case maxTime
    /// A caller's criterion ended the row.
    case stoppingCriterion
}

/// All conditions under which a row ends.
struct StoppingCriteria {
    let maxLength: Int
    let eos: [Int32]
    let stopStrings: StopStringMatcher?
    let custom: [StoppingCriterion]
    private let deadline: ContinuousClock.Instant?

    /// The time limit starts now.
    init(
        maxLength: Int, maxTime: Double?, eos: [Int32], stopStrings: StopStringMatcher?, custom: [StoppingCriterion]
    ) {
        self.maxLength = maxLength
        self.eos = eos
        self.stopStrings = stopStrings
        self.custom = custom
        // A century at most: longer times overflow the instant.
        deadline = maxTime.map { ContinuousClock.now + .seconds(min($0, 3.2e9)) }
    }

    /// Whether the time has run out; read once per step, for ``finishReason(_:outOfTime:)``.
    var isOutOfTime: Bool { deadline.map { ContinuousClock.now > $0 } ?? false }

    func finishReason(_ context: RowContext, outOfTime: Bool) throws -> FinishReason? {
        if let last = context.ids.last, eos.contains(last) { return .endOfSequence(last) }
        if let text = stopStrings?.match(context.ids) { return .stopString(text) }
        for criterion in custom where try criterion(context) { return .stoppingCriterion }
        if context.ids.count >= maxLength { return .maxLength }
        return outOfTime ? .maxTime : nil
    }
}
