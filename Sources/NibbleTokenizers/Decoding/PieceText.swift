/// Joins SentencePiece's pieces as SentencePiece does: each run between special tokens is a text of its own, without the space in
/// front. Takes one token at a time.
struct PieceText: Sendable {
    private static let mark: [UInt8] = [0xE2, 0x96, 0x81]

    /// Pieces of the model. Other texts keep the space in front.
    let pieces: Set<[UInt8]>
    let special: Set<[UInt8]>
    /// Whether a space follows special tokens.
    let separatesSpecial: Bool
    private var isAtStart = true
    private var isEmpty = true
    /// White space that is only shown if something follows.
    private var held: [UInt8] = []

    init(pieces: Set<[UInt8]>, special: Set<[UInt8]>, separatesSpecial: Bool) {
        self.pieces = pieces
        self.special = special
        self.separatesSpecial = separatesSpecial
    }

    mutating func push(_ token: [UInt8]) -> [UInt8] {
        var text = token[...]
        if special.contains(token) {
            isAtStart = true
            if separatesSpecial { text.append(0x20) }
        } else {
            while isAtStart, text.starts(with: Self.mark), pieces.contains(token) { text = text.dropFirst(Self.mark.count) }
            if !text.isEmpty { isAtStart = false }
        }
        let spaced = Decoder.replace(Self.mark, in: Array(text), by: [0x20])
        var shown = (held + spaced)[...]
        if isEmpty { shown = shown.drop(while: Self.isSpace) }
        let end = shown.lastIndex { !Self.isSpace($0) }.map { $0 + 1 } ?? shown.startIndex
        held = Array(shown[end...])
        shown = shown[..<end]
        if !shown.isEmpty { isEmpty = false }
        return Array(shown)
    }

    private static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || (0x09...0x0D).contains(byte) }
}
