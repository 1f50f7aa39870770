/// A feed cut into calls of at most so many tokens. A session keeps one and fills it anew, so that a step makes no arrays.
struct FeedPlan {
    /// A run of one input's tokens within a call.
    struct Segment {
        /// Index of the input, and the row it feeds.
        var input: Int
        var row: Int
        var range: Range<Int>
        /// Whether the input's last token is in it.
        var isLast: Bool
    }

    private var segments: [Segment] = []
    /// Where each call's segments end.
    private var ends: [Int] = []
    /// The rows whose last token is in the call that was asked for last.
    private(set) var finishedRows: [Int] = []
    /// Whether each input has one token.
    private(set) var isStep = true

    var chunks: Range<Int> { 0..<ends.count }

    mutating func fill(_ inputs: [RowTokens], chunkTokens: Int) {
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

    mutating func chunk(_ index: Int) -> ArraySlice<Segment> {
        let chunk = segments[(index == 0 ? 0 : ends[index - 1])..<ends[index]]
        finishedRows.removeAll(keepingCapacity: true)
        for segment in chunk where segment.isLast { finishedRows.append(segment.row) }
        return chunk
    }
}
