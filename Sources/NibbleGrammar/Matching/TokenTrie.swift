/// A vocabulary's tokens as one tree of bytes, laid out depth first, so that a walk goes through memory in one direction.
package struct TokenTrie: Sendable {
    /// By node: its byte, how many bytes lead to it (from 1), the token that ends there or −1, and the first node behind its
    /// subtree.
    let bytes: [UInt8]
    let depths: [UInt8]
    let tokens: [Int32]
    let subtreeEnds: [Int32]
    /// More tokens with the same bytes as the first: (node, token).
    let duplicates: [(node: Int32, token: Int32)]

    /// Longer tokens are never allowed.
    static let maximumTokenBytes = 255

    /// - Parameter tokens: number and bytes of each; those without bytes are left out.
    init(_ entries: [(token: Int32, bytes: [UInt8])]) {
        let sorted = entries.filter { (1...Self.maximumTokenBytes).contains($0.bytes.count) }
            .sorted { $0.bytes != $1.bytes ? $0.bytes.lexicographicallyPrecedes($1.bytes) : $0.token < $1.token }
        var bytes: [UInt8] = []
        var depths: [UInt8] = []
        var tokens: [Int32] = []
        var duplicates: [(Int32, Int32)] = []
        var path: [(byte: UInt8, node: Int)] = []
        var ends: [Int32] = []
        for (token, text) in sorted {
            let common = zip(path, text).prefix { $0.byte == $1 }.count
            if common == text.count, path.count == text.count {
                duplicates.append((Int32(path[common - 1].node), token))
                continue
            }
            for (_, node) in path[common...] { ends[node] = Int32(bytes.count) }
            path.removeSubrange(common...)
            for byte in text[common...] {
                path.append((byte, bytes.count))
                bytes.append(byte)
                depths.append(UInt8(path.count))
                tokens.append(-1)
                ends.append(0)
            }
            tokens[tokens.count - 1] = token
        }
        for (_, node) in path { ends[node] = Int32(bytes.count) }
        self.bytes = bytes
        self.depths = depths
        self.tokens = tokens
        self.duplicates = duplicates
        subtreeEnds = ends
    }
}

/// A vocabulary as masks need it. Made once a tokenizer.
package struct GrammarVocabulary: Sendable {
    /// Bytes of each token; empty for those that stand for no text, such as special tokens.
    let tokenBytes: [[UInt8]]
    /// Tokens that end a text.
    let endTokens: [Int32]
    let all: TokenTrie
    /// Tokens of printable ASCII that needs no escape in a JSON string, up to so many bytes, and the tree of all others.
    let plainSlices: [PlainSlice]

    struct PlainSlice: Sendable {
        var maximumBytes: Int
        var mask: [UInt32]
        var others: TokenTrie
    }

    package init(tokenBytes: [[UInt8]], endTokens: [Int32]) {
        self.tokenBytes = tokenBytes
        self.endTokens = endTokens
        let entries = tokenBytes.enumerated().map { (token: Int32($0.offset), bytes: $0.element) }
        all = TokenTrie(entries)
        plainSlices = [10, 30, TokenTrie.maximumTokenBytes].map { maximum in
            var mask = [UInt32](repeating: 0, count: (tokenBytes.count + 31) / 32)
            var others: [(token: Int32, bytes: [UInt8])] = []
            for entry in entries {
                if !entry.bytes.isEmpty, entry.bytes.count <= maximum, entry.bytes.allSatisfy(Self.isPlain) {
                    mask[Int(entry.token) / 32] |= 1 << (UInt32(entry.token) % 32)
                } else {
                    others.append(entry)
                }
            }
            return PlainSlice(maximumBytes: maximum, mask: mask, others: TokenTrie(others))
        }
    }

    /// Words of a mask: token t is bit t mod 32 of word t / 32.
    package var maskWords: Int { (tokenBytes.count + 31) / 32 }

    static let plainBytes: [UInt8] = (UInt8(0x20)...0x7E).filter(isPlain)

    static func isPlain(_ byte: UInt8) -> Bool { (0x20...0x7E).contains(byte) && byte != 0x22 && byte != 0x5C }
}
