/// A vocabulary's tokens as one tree of bytes, laid out depth first, so that a walk goes through memory in one direction.
struct TokenTrie: Sendable {
    struct Node {
        var byte: UInt8
        /// How many bytes lead here, from 1.
        var depth: UInt8
        /// How many bytes the longest token below goes on for.
        var height: UInt8 = 0
        /// The first of the tokens that end here or below; those that end here come first.
        var firstToken: Int32
        /// The first node behind the subtree.
        var end: Int32 = 0
    }

    /// The last one is no node; it ends the others' tokens.
    let nodes: [Node]
    /// In the order of nodes; several may end at one node.
    let tokens: [Int32]

    /// Longer tokens are never allowed.
    static let maximumTokenBytes = 255

    /// - Parameter tokens: number and bytes of each; those without bytes are left out.
    init(_ entries: [(token: Int32, bytes: [UInt8])]) {
        let sorted = entries.filter { (1...Self.maximumTokenBytes).contains($0.bytes.count) }
            .sorted { $0.bytes != $1.bytes ? $0.bytes.lexicographicallyPrecedes($1.bytes) : $0.token < $1.token }
        var nodes: [Node] = []
        var path: [Int] = []
        for (index, (_, text)) in sorted.enumerated() {
            let common = zip(path, text).prefix { nodes[$0].byte == $1 }.count
            for node in path[common...] { nodes[node].end = Int32(nodes.count) }
            path.removeSubrange(common...)
            for byte in text[common...] {
                path.append(nodes.count)
                nodes.append(Node(byte: byte, depth: UInt8(path.count), firstToken: Int32(index)))
            }
            for (depth, node) in path.enumerated() {
                nodes[node].height = max(nodes[node].height, UInt8(text.count - depth - 1))
            }
        }
        for node in path { nodes[node].end = Int32(nodes.count) }
        nodes.append(Node(byte: 0, depth: 0, firstToken: Int32(sorted.count)))
        self.nodes = nodes
        tokens = sorted.map(\.token)
    }
}

/// A vocabulary as masks need it. Made once a tokenizer.
package struct GrammarVocabulary: Sendable {
    /// Tells vocabularies apart.
    final class Identity: Sendable {}
    let identity = Identity()
    /// Bytes of each token; empty for those that stand for no text, such as special tokens.
    let tokenBytes: [[UInt8]]
    /// Tokens that end a text.
    let endTokens: [Int32]
    /// Tokens of printable ASCII that needs no escape in a JSON string, and all others.
    let plain: TokenTrie
    let others: TokenTrie
    /// Bytes of the longest token of ``plain``.
    let longestPlain: Int
    /// The mask of all tokens of ``plain``.
    let plainMask: [UInt32]
    /// By first byte: the mask of its tokens of ``plain``; empty where there are few.
    let plainMasks: [[UInt32]]

    package init(tokenBytes: [[UInt8]], endTokens: [Int32]) {
        self.tokenBytes = tokenBytes
        self.endTokens = endTokens
        var split: (plain: [(token: Int32, bytes: [UInt8])], others: [(token: Int32, bytes: [UInt8])]) = ([], [])
        let words = (tokenBytes.count + 31) / 32
        var masks = Array(repeating: [UInt32](), count: 256)
        var plainMask = [UInt32](repeating: 0, count: words)
        for (token, bytes) in tokenBytes.enumerated() where (1...TokenTrie.maximumTokenBytes).contains(bytes.count) {
            guard bytes.allSatisfy(Self.isPlain) else {
                split.others.append((Int32(token), bytes))
                continue
            }
            split.plain.append((Int32(token), bytes))
            plainMask.insert(Int32(token))
            if masks[Int(bytes[0])].isEmpty { masks[Int(bytes[0])] = [UInt32](repeating: 0, count: words) }
            masks[Int(bytes[0])].insert(Int32(token))
        }
        for byte in masks.indices where masks[byte].reduce(0, { $0 + $1.nonzeroBitCount }) < words / 8 { masks[byte] = [] }
        plain = TokenTrie(split.plain)
        others = TokenTrie(split.others)
        longestPlain = split.plain.map(\.bytes.count).max() ?? 0
        self.plainMask = plainMask
        plainMasks = masks
    }

    /// The mask of the tokens that end a text.
    var endMask: [UInt32] {
        var mask = [UInt32](repeating: 0, count: maskWords)
        for token in endTokens where token >= 0 && Int(token) < tokenBytes.count { mask.insert(token) }
        return mask
    }

    /// The bytes of a token that stands for text.
    func bytes(_ token: Int32) -> [UInt8]? {
        guard tokenBytes.indices.contains(Int(token)), !tokenBytes[Int(token)].isEmpty else { return nil }
        return tokenBytes[Int(token)]
    }

    /// Words of a mask: token t is bit t mod 32 of word t / 32.
    package var maskWords: Int { (tokenBytes.count + 31) / 32 }

    static let plainBytes: [UInt8] = (UInt8(0x20)...0x7E).filter(isPlain)

    static func isPlain(_ byte: UInt8) -> Bool { (0x20...0x7E).contains(byte) && byte != 0x22 && byte != 0x5C }
}

extension [UInt32] {
    /// Sets the bit of a token.
    @inline(__always)
    mutating func insert(_ token: Int32) { self[Int(token) >> 5] |= 1 << (UInt32(token) & 31) }

    mutating func formUnion(_ other: [UInt32]) {
        for index in indices { self[index] |= other[index] }
    }
}
