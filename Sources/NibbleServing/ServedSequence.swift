import NibbleModels

/// One answer of a request, from its arrival to its end.
struct ServedSequence: Sendable {
    let id: RequestID
    let choice: Int
    let request: ServingRequest
    /// The prompt and what was chosen since.
    var tokens: [Int32]
    /// What the executor's cache holds of ``tokens``, or will hold after the step that is running.
    var cache: SequenceBlocks
    /// Its place in the executor while it runs.
    var slot: Int?
    /// Slots kept for the other choices, which begin as copies once the prompt but for its last token is computed.
    var forkSlots: [Int] = []
    /// Choices that have not begun.
    var pendingForks: Int
    /// How often a shorter prompt went first.
    var overtakings = 0

    /// - Parameter cache: without tokens.
    init(id: RequestID, request: ServingRequest, cache: SequenceBlocks) {
        self.id = id
        choice = 0
        self.request = request
        tokens = request.prompt
        self.cache = cache
        pendingForks = request.choices - 1
    }

    /// Another choice of the same request, at the same place.
    init(forkOf leader: ServedSequence, choice: Int, cache: SequenceBlocks, slot: Int) {
        id = leader.id
        self.choice = choice
        request = leader.request
        tokens = leader.tokens
        self.cache = cache
        self.slot = slot
        pendingForks = 0
    }

    var chosenCount: Int { tokens.count - request.prompt.count }

    /// Tokens that can be run now: all that the cache lacks, but not the prompt's last while copies are to be made before it.
    var remaining: Int { tokens.count - cache.length - (pendingForks > 0 ? 1 : 0) }

    /// Whether its next step is one token whose successor is wanted.
    var isDecoding: Bool { pendingForks == 0 && remaining == 1 }

    /// The order of arrival, choices of a request in their order.
    func isOlder(than other: ServedSequence) -> Bool {
        (id.number, choice) < (other.id.number, other.choice)
    }
}
