/// The unigram language model: the segmentation whose pieces have the highest sum of log probabilities.
///
/// Kudo: "Subword Regularization" (2018). Ties go to the candidate found first.
struct UnigramModel: Sendable {
    /// Unknown text costs this much more than the worst piece.
    private static let unknownPenalty = 10.0

    let table: TokenTable
    private let scores: [Double]
    private let unknownID: Int32?
    private let trie: ByteTrie
    private let unknownScore: Double
    private let byteTokens: [Int32]?

    /// - Parameters:
    ///   - scores: by id; one for every id of the table.
    ///   - matchable: ids whose text may be found in text; `nil` for all.
    init(table: TokenTable, scores: [Double], unknownID: Int32?, fallsBackToBytes: Bool, matchable: [Bool]? = nil) {
        self.table = table
        self.scores = scores
        self.unknownID = unknownID
        var trie = ByteTrie()
        for id in 0..<scores.count where matchable?[id] ?? true {
            if let text = table.text(of: Int32(id)) { trie.insert(text, value: table.id(of: Array(text)) ?? Int32(id)) }
        }
        self.trie = trie
        unknownScore = (scores.min() ?? 0) - Self.unknownPenalty
        let bytes = (0..<256).map { table.id(of: ByteToken.name(UInt8($0))) ?? -1 }
        byteTokens = fallsBackToBytes ? bytes : nil
    }

    private struct Node {
        var score = 0.0
        var start: Int32 = -1
        var id: Int32 = -1
    }

    /// Tokens of one word.
    ///
    /// - Returns: false if text had to be left out: it is not in the vocabulary, and there is no unknown token.
    /// - Complexity: O(n × longest piece).
    func encode(_ word: UnsafeBufferPointer<UInt8>, into pieces: inout [ModelPiece]) -> Bool {
        let (nodes, isComplete) = bestPaths(word)
        var backwards: [(range: Range<Int>, id: Int32)] = []
        var end = word.count
        while end > 0 {
            let start = Int(nodes[end].start)
            if nodes[end].id == unknownMark, let last = backwards.last, last.id == unknownMark {
                backwards[backwards.count - 1].range = start..<last.range.upperBound
            } else {
                backwards.append((start..<end, nodes[end].id))
            }
            end = start
        }
        for (range, id) in backwards.reversed() {
            if id == unknownMark {
                appendUnknown(UnsafeBufferPointer(rebasing: word[range]), to: &pieces)
            } else {
                pieces.append(ModelPiece(id: id, length: range.count))
            }
        }
        return isComplete
    }

    /// Marks unknown text on the best path.
    private var unknownMark: Int32 { unknownID ?? -1 }

    private func bestPaths(_ word: UnsafeBufferPointer<UInt8>) -> (nodes: [Node], isComplete: Bool) {
        var isComplete = true
        var nodes = [Node](repeating: Node(), count: word.count + 1)
        var start = 0
        while start < word.count {
            let length = UTF8Text.length(ofLead: word[start])
            let score = nodes[start].score
            var hasSingle = false
            trie.forEachPrefix(of: word, from: start) { end, id in
                Self.offer(&nodes[end], score + scores[Int(id)], start, id)
                if end - start == length { hasSingle = true }
            }
            if !hasSingle {
                Self.offer(&nodes[start + length], score + unknownScore, start, unknownMark)
                if unknownID == nil, nodes[start + length].id == unknownMark { isComplete = false }
            }
            start += length
        }
        return (nodes, isComplete)
    }

    @inline(__always)
    private static func offer(_ node: inout Node, _ score: Double, _ start: Int, _ id: Int32) {
        guard node.start < 0 || score > node.score else { return }
        node = Node(score: score, start: Int32(truncatingIfNeeded: start), id: id)
    }

    private func appendUnknown(_ text: UnsafeBufferPointer<UInt8>, to pieces: inout [ModelPiece]) {
        if let id = table.id(of: text) {
            pieces.append(ModelPiece(id: id, length: text.count))
        } else if let byteTokens, text.allSatisfy({ byteTokens[Int($0)] >= 0 }) {
            for (index, byte) in text.enumerated() {
                // All of them stand for the whole text; the first takes its length.
                pieces.append(ModelPiece(id: byteTokens[Int(byte)], length: index == 0 ? text.count : 0))
            }
        } else if let unknownID {
            pieces.append(ModelPiece(id: unknownID, length: text.count))
        }
    }
}
