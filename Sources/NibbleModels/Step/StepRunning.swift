package import NibbleCore

/// Runs plans over one model, for as long as the model is loaded. Used by one thread at a time.
package protocol StepRunning: AnyObject {
    /// Sequences side by side.
    var slots: Int { get }
    /// Tokens of a step, all rows together.
    var chunkTokens: Int { get }
    /// The block tables of its cache, of ``KeyValueGeometry/blockSize`` positions a block.
    var tables: [CacheTable] { get }
    /// Positions that a slot can hold.
    var context: Int { get }
    var vocabularySize: Int { get }
    /// The most tokens of an encoder's input; `nil` for decoders.
    var encoderContext: Int? { get }
    /// Whether equal beginnings have equal keys and values. Not where rotary tables follow the length of the whole
    /// sequence, and not where they depend on an encoder's input.
    var sharesPrefixes: Bool { get }

    /// A sequence begins in a slot, or begins anew after it was preempted. For an encoder-decoder the encoder runs here, unless
    /// its output for the same input is still there.
    func begin(slot: Int, _ settings: SlotSettings) throws
    /// The tokens of which the slot's next one may be chosen, where its selection asks for a mask: bit v mod 32 of word v / 32
    /// for token v.
    func setMask(_ words: UnsafeBufferPointer<Int32>, slot: Int) throws
    /// Runs one step.
    ///
    /// - Parameter beforeChoosing: called when the layers are enqueued, before tokens are chosen: masks that are written here are
    ///   made while the device runs.
    /// - Returns: one answer for each row of the plan that wants a token, in its order.
    /// - Throws: only if the device fails; every row is lost then.
    func step(_ plan: StepPlan, beforeChoosing: (() -> Void)?) throws -> [StepAnswer]
}

extension StepRunning {
    package var sharesPrefixes: Bool { true }

    package func step(_ plan: StepPlan) throws -> [StepAnswer] { try step(plan, beforeChoosing: nil) }
    package var encoderContext: Int? { nil }
}

/// What the executor keeps of a sequence while it holds a slot.
package struct SlotSettings: Sendable {
    package var selection: SlotSelection
    /// The prompt, for penalties that count its tokens.
    package var prompt: [Int32]
    /// Encoder-decoders: the encoder's input, without padding.
    package var encoderInput: [Int32] = []
    /// `nil`: those that are active.
    package var adapters: AdapterWeights?
    /// Tokens chosen so far: none at first, some after a preemption.
    package var generated: [Int32]
    /// How many of the most probable tokens are reported beside the chosen one, at most 20; `nil`: no probabilities at all.
    package var logProbabilities: Int?

    package init(
        selection: SlotSelection = SlotSelection(), prompt: [Int32] = [], generated: [Int32] = [], logProbabilities: Int? = nil
    ) {
        self.selection = selection
        self.prompt = prompt
        self.generated = generated
        self.logProbabilities = logProbabilities
    }
}

/// What a step chose for a row.
package struct StepAnswer: Sendable, Equatable {
    /// The token, or a negative number where no token could be chosen.
    package var token: Int32
    package var scores: TokenScores?

    package init(token: Int32, scores: TokenScores? = nil) {
        self.token = token
        self.scores = scores
    }
}

/// Natural logarithms of probabilities by the model's own logits, before penalties, temperature and masks.
package struct TokenScores: Sendable, Equatable {
    /// Of the chosen token.
    package var chosen: Float
    /// The most probable tokens, best first.
    package var top: [TokenScore]

    package init(chosen: Float, top: [TokenScore]) {
        self.chosen = chosen
        self.top = top
    }
}

/// A token and the logarithm of its probability.
public struct TokenScore: Sendable, Equatable {
    /// The token.
    public var token: Int32
    /// A natural logarithm.
    public var logProbability: Float

    package init(token: Int32, logProbability: Float) {
        self.token = token
        self.logProbability = logProbability
    }
}
