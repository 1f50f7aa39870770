import NibbleCore
import NibbleModels
import Synchronization

/// A model whose KV cache outlives a generation: of a prompt that begins like the last sequence, only the rest is fed.
///
/// Works for single sequences of decoder-only models; other requests pass through. A generation that starts while another runs
/// begins with an empty cache.
final class PrefixCache: GenerativeModel {
    /// The session of the last generation. Taken out by the generation that uses it, so it has one user at a time.
    private struct RetainedSession: @unchecked Sendable {
        var session: any DecodingSession
        var cacheQuantization: KeyValueQuantization?
        var tokens: [Int32]
    }

    private let model: any GenerativeModel
    private let retained = Mutex<RetainedSession?>(nil)
    /// Tokens of the last prompt that the cache already held.
    let reused = Atomic<Int>(0)

    init(_ model: any GenerativeModel) { self.model = model }

    var vocabularySize: Int { model.vocabularySize }
    var isEncoderDecoder: Bool { model.isEncoderDecoder }
    var maximumPositions: Int? { model.maximumPositions }
    var positionLimit: Int? { model.positionLimit }

    func makeSession(_ request: SessionRequest) throws -> any DecodingSession {
        guard request.rows == 1, !isEncoderDecoder else { return try model.makeSession(request) }
        let found = retained.withLock { retained in
            defer { retained = nil }
            return retained
        }
        let form = request.cacheQuantization
        found?.session.interruption = request.interruption
        if let found, found.session.capacity >= request.capacity, found.cacheQuantization == form {
            return PrefixCacheSession(found.session, tokens: found.tokens, form, owner: self)
        }
        var larger = request
        larger.capacity = Self.rounded(request.capacity, limit: maximumPositions)
        return PrefixCacheSession(try model.makeSession(larger), tokens: [], form, owner: self)
    }

    /// Rounds up to a power of two, so that a growing chat seldom needs a new session.
    private static func rounded(_ capacity: Int, limit: Int?) -> Int {
        var size = 1024
        while size < capacity, size < 1 << 30 { size *= 2 }
        return max(capacity, min(size, limit ?? size))
    }

    fileprivate func keep(_ session: any DecodingSession, _ cacheQuantization: KeyValueQuantization?, tokens: [Int32]) {
        let value = RetainedSession(session: session, cacheQuantization: cacheQuantization, tokens: tokens)
        retained.withLock { $0 = value }
    }
}

/// Feeds the retained session the tokens that it does not hold yet, and returns it to the cache when the generation ends.
private final class PrefixCacheSession: DecodingSession {
    private let session: any DecodingSession
    private let cacheQuantization: KeyValueQuantization?
    private let owner: PrefixCache
    /// The tokens that the retained session holds.
    private var held: [Int32]
    /// How many of them belong to this generation.
    private var fed = 0

    init(
        _ session: any DecodingSession, tokens: [Int32], _ cacheQuantization: KeyValueQuantization?, owner: PrefixCache
    ) {
        self.session = session
        self.cacheQuantization = cacheQuantization
        self.owner = owner
        held = tokens
    }

    deinit {
        session.interruption = nil
        owner.keep(session, cacheQuantization, tokens: held)
    }

    var vocabularySize: Int { session.vocabularySize }
    var rows: Int { session.rows }
    var capacity: Int { session.capacity }

    var cacheByteCount: Int { session.cacheByteCount }

    func length(ofRow row: Int) -> Int { fed }

    func feed<Result>(
        _ inputs: [RowTokens], logits: LogitsSelection, _ body: (LogitsBatch) throws -> Result
    ) throws -> Result {
        // If all logits are wanted, held tokens have to be fed again.
        let missing = try missing(inputs, reuses: logits == .last)
        return try recording(missing) { try session.feed(missing, logits: logits, body) }
    }

    func feed(_ inputs: [RowTokens], sampling: SamplingParameters) throws -> [Int32] {
        let missing = try missing(inputs, reuses: true)
        return try recording(missing) { try session.feed(missing, sampling: sampling) }
    }

    func gather(_ sources: [Int]) throws {
        try dropUnfed()
        try session.gather(sources)
    }

    var interruption: (@Sendable () throws -> Void)? {
        get { session.interruption }
        set { session.interruption = newValue }
    }

    func canTruncate(row: Int, to length: Int) -> Bool { session.canTruncate(row: row, to: length) }

    func truncate(row: Int, to length: Int) throws {
        try session.truncate(row: row, to: length)
        held.removeLast(max(held.count - max(length, 0), 0))
        fed = min(fed, held.count)
    }

    /// The part of `inputs` that is not held, at least its last token.
    private func missing(_ inputs: [RowTokens], reuses: Bool) throws -> [RowTokens] {
        guard inputs.count == 1, let input = inputs.first else { return inputs }
        let isPrompt = fed == 0
        var common = 0
        if reuses { common = zip(held[fed...], input.tokens.dropLast()).prefix { $0 == $1 }.count }
        if fed + common < held.count, !session.canTruncate(row: 0, to: fed + common) {
            // An attention window has passed what would have to be cut back to: this generation's tokens are fed again.
            try session.truncate(row: 0, to: 0)
            let begun = held[..<fed]
            held = []
            fed = 0
            if isPrompt { owner.reused.store(0, ordering: .relaxed) }
            return [RowTokens(row: input.row, tokens: begun + input.tokens)]
        }
        fed += common
        if isPrompt { owner.reused.store(common, ordering: .relaxed) }
        try dropUnfed()
        return common == 0 ? inputs : [RowTokens(row: input.row, tokens: Array(input.tokens[common...]))]
    }

    /// Forgets the tokens of an earlier generation beyond this point.
    private func dropUnfed() throws {
        guard held.count > fed else { return }
        held.removeLast(held.count - fed)
        try session.truncate(row: 0, to: fed)
    }

    private func recording<Result>(_ inputs: [RowTokens], _ feed: () throws -> Result) throws -> Result {
        do {
            let result = try feed()
            for input in inputs { held += input.tokens }
            fed = held.count
            return result
        } catch {
            // The session has restored its rows, or emptied them.
            held.removeLast(max(held.count - session.length(ofRow: 0), 0))
            fed = min(fed, held.count)
            throw error
        }
    }
}
