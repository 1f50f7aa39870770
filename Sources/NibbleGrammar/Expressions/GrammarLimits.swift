/// What compiling a grammar and following it may cost. Chosen so that nothing takes 2 s or 200 MB.
enum GrammarLimits {
    /// Steps of compilation. One step is about 20 ns: an expression looked up; making one is several.
    static let compilationSteps = 10_000_000
    /// Steps of one mask, or of one advance by a token: at most about 80 ms.
    static let maskSteps = 3_500_000
    /// Expressions of a grammar, those with many parts counted by their size.
    static let expressionSize = 400_000
    /// Derivatives that are remembered.
    static let derivatives = 4_000_000
    static let states = 50_000
    static let stacks = 300_000
    /// Frames of all stacks and threads of all states.
    static let frames = 2_000_000
    /// Symbols of all rules.
    static let symbols = 500_000
    /// Bytes of masks that are remembered.
    static let maskBytes = 48 << 20
    /// Characters of a schema, or bytes of a grammar.
    static let sourceSize = 1 << 20
}

/// The steps that a piece of work may still take. Work goes on without a result when they are used up, until somebody checks.
struct Fuel: Sendable {
    private(set) var budget = GrammarLimits.compilationSteps
    private var left = GrammarLimits.compilationSteps
    /// Whether there is no room for more expressions.
    var isFull = false

    var isEmpty: Bool { left < 0 }

    mutating func spend(_ steps: Int) { left -= steps }

    mutating func fill(_ steps: Int) {
        budget = steps
        left = steps
    }
}
