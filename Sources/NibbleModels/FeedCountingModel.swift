import NibbleCore

/// A model that counts the feeds of its sessions, for benchmarks and tests of assisted decoding. For one thread.
package final class FeedCountingModel: GenerativeModel, @unchecked Sendable {
    private let base: any GenerativeModel
    package fileprivate(set) var feeds = 0

    package init(_ base: any GenerativeModel) { self.base = base }

    package var vocabularySize: Int { base.vocabularySize }
    package var isEncoderDecoder: Bool { base.isEncoderDecoder }
    package var maximumPositions: Int? { base.maximumPositions }
    package var positionLimit: Int? { base.positionLimit }

    package func makeSession(_ request: SessionRequest) throws -> any DecodingSession {
        FeedCountingSession(try base.makeSession(request), self)
    }
}

private final class FeedCountingSession: DecodingSession {
    private let base: any DecodingSession
    private let owner: FeedCountingModel

    init(_ base: any DecodingSession, _ owner: FeedCountingModel) {
        self.base = base
        self.owner = owner
    }

    var vocabularySize: Int { base.vocabularySize }
    var rows: Int { base.rows }
    var capacity: Int { base.capacity }
    var cacheByteCount: Int { base.cacheByteCount }

    var interruption: (@Sendable () throws -> Void)? {
        get { base.interruption }
        set { base.interruption = newValue }
    }

    func length(ofRow row: Int) -> Int { base.length(ofRow: row) }

    func feed<Result>(
        _ inputs: [RowTokens], logits: LogitsSelection, _ body: (LogitsBatch) throws -> Result
    ) throws -> Result {
        owner.feeds += 1
        return try base.feed(inputs, logits: logits, body)
    }

    func feed(_ inputs: [RowTokens], sampling: SamplingParameters) throws -> [Int32] {
        owner.feeds += 1
        return try base.feed(inputs, sampling: sampling)
    }

    func gather(_ sources: [Int]) throws { try base.gather(sources) }
    func canTruncate(row: Int, to length: Int) -> Bool { base.canTruncate(row: row, to: length) }
    func truncate(row: Int, to length: Int) throws { try base.truncate(row: row, to: length) }
}
