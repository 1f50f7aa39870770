/// What the blocks of a table hold, and which of them a sequence still reads.
///
/// ``BlockPool`` forks, releases, truncates and shares every kind by these rules alone. The encoder's output of an
/// encoder-decoder never changes, so it needs none of them: ``EncoderPool`` keeps it.
package enum CacheKind: Sendable, Hashable {
    /// Keys and values of every position; each is read until the sequence ends.
    case full
    /// Keys and values, of which a position reads the last `Int`, its own included.
    case window(Int)
    /// A state of fixed size in place of keys and values. A step reads the state that the last one left and leaves its own in
    /// the block of its last position.
    case state

    /// The first block that a sequence of `length` positions reads when it goes on.
    func firstRead(at length: Int, blockSize: Int) -> Int {
        switch self {
        case .full: 0
        case .window(let window): max(length - window + 1, 0) / blockSize
        case .state: max(length - 1, 0) / blockSize
        }
    }

    /// The first block that the positions `start ..< end` write to.
    func firstWritten(from start: Int, to end: Int, blockSize: Int) -> Int {
        self == .state ? (end - 1) / blockSize : start / blockSize
    }

    /// The most blocks that a sequence holds while it adds `count` positions at once, however long it is; `nil`: no bound.
    package func blocksAtOnce(adding count: Int, blockSize: Int) -> Int? {
        switch self {
        case .full: nil
        // They may begin and end anywhere within a block.
        case .window(let window): (window - 1 + count + blockSize - 1) / blockSize + 1
        case .state: 2
        }
    }
}

/// One block table of a cache, which some of the layers share.
package struct CacheTable: Sendable, Hashable {
    package var kind: CacheKind
    /// Physical blocks.
    package var blockCount: Int

    package init(_ kind: CacheKind = .full, blockCount: Int) {
        self.kind = kind
        self.blockCount = blockCount
    }
}
