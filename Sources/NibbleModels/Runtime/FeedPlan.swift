/// A feed cut into chunks of at most so many tokens. A session keeps one plan and fills it again for each feed, so that a
/// decode step makes no arrays.
package struct FeedPlan {
    /// A run of one input's tokens within a chunk.
    package struct Segment: Equatable {
        /// Index of the input.
        package var input: Int
        /// The row it feeds.
        package var row: Int
        /// Indices into the input's tokens.
        package var range: Range<Int>
        /// Whether the input's last token is among them.
        package var isLast: Bool
    }

    private var segments: [Segment] = []
    /// Where each chunk's segments end.
    private var ends: [Int] = []
    /// The rows whose last token is in the chunk that was asked for last.
    package private(set) var finishedRows: [Int] = []
    /// Whether each input has one token.
    package private(set) var isStep = true

    package init() {}

    package var chunks: Range<Int> { 0..<ends.count }

    package mutating func fill(_ inputs: [RowTokens], chunkTokens: Int) {
        segments.removeAll(keepingCapacity: true)
        ends.removeAll(keepingCapacity: true)
        isStep = inputs.allSatisfy { $0.tokens.count == 1 }
        var room = chunkTokens
        for (index, input) in inputs.enumerated() {
            var start = 0
            while start < input.tokens.count {
                let end = min(start + room, input.tokens.count)
                segments.append(Segment(input: index, row: input.row, range: start..<end, isLast: end == input.tokens.count))
                room -= end - start
                start = end
                if room == 0 {
                    ends.append(segments.count)
                    room = chunkTokens
                }
            }
        }
        if segments.count > ends.last ?? 0 { ends.append(segments.count) }
    }

    /// The segments of a chunk; sets ``finishedRows``.
    package mutating func chunk(_ index: Int) -> ArraySlice<Segment> {
        let chunk = segments[(index == 0 ? 0 : ends[index - 1])..<ends[index]]
        finishedRows.removeAll(keepingCapacity: true)
        for segment in chunk where segment.isLast { finishedRows.append(segment.row) }
        return chunk
    }
}
