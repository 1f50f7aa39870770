/// A tokenized text. All arrays have one element a token.
public struct Encoding: Sendable, Equatable {
    /// The tokens' ids.
    public var ids: [Int32] = []
    /// The tokens' texts as the vocabulary writes them.
    public var tokens: [String] = []
    /// The part of the text a token stands for, in Unicode scalars of the text as given; empty for tokens that were added around it.
    public var offsets: [Range<Int>] = []
    /// 1 for a token, 0 for padding.
    public var attentionMask: [Int32] = []
    /// 0 for the first text and 1 for the second, unless the tokenizer's template says otherwise.
    public var typeIDs: [Int32] = []
    /// 1 for tokens added around the text, 0 for tokens of the text.
    public var specialTokensMask: [Int32] = []
    /// The tokens that truncation removed, in pieces of the same length.
    public var overflowing: [Encoding] = []

    package init() {}

    /// Number of tokens.
    package var count: Int { ids.count }

    mutating func append(id: Int32, token: String, offset: Range<Int>, typeID: Int32, isSpecial: Bool) {
        ids.append(id)
        tokens.append(token)
        offsets.append(offset)
        attentionMask.append(1)
        typeIDs.append(typeID)
        specialTokensMask.append(isSpecial ? 1 : 0)
    }

    mutating func append(_ other: Encoding) {
        ids += other.ids
        tokens += other.tokens
        offsets += other.offsets
        attentionMask += other.attentionMask
        typeIDs += other.typeIDs
        specialTokensMask += other.specialTokensMask
    }

    func slice(_ range: Range<Int>) -> Encoding {
        var part = Encoding()
        part.ids = Array(ids[range])
        part.tokens = Array(tokens[range])
        part.offsets = Array(offsets[range])
        part.attentionMask = Array(attentionMask[range])
        part.typeIDs = Array(typeIDs[range])
        part.specialTokensMask = Array(specialTokensMask[range])
        return part
    }

    mutating func setTypeID(_ typeID: Int32) {
        typeIDs = [Int32](repeating: typeID, count: ids.count)
    }
}

/// The side that is truncated or padded.
public enum PaddingSide: String, Sendable { case left, right }

extension Encoding {
    /// Keeps `length` tokens. The rest goes to `overflowing`, where each piece repeats `stride` tokens of the previous one.
    ///
    /// - Parameters:
    ///   - length: tokens to keep, ≥ 0.
    ///   - side: where tokens are cut off.
    package mutating func truncate(to length: Int, stride: Int = 0, side: PaddingSide = .right) {
        guard length < count else { return }
        let length = max(length, 0)
        guard length > 0 else {
            var rest = self
            rest.overflowing = []
            self = Encoding()
            overflowing = [rest]
            return
        }
        let step = max(length - max(stride, 0), 1)
        var pieces: [Range<Int>] = []
        switch side {
        case .right:
            var start = 0
            while true {
                pieces.append(start..<min(start + length, count))
                if start + length >= count { break }
                start += step
            }
        case .left:
            var end = count
            while true {
                pieces.append(max(end - length, 0)..<end)
                if end <= length { break }
                end -= step
            }
        }
        let whole = self
        self = whole.slice(pieces[0])
        overflowing = pieces.dropFirst().map { whole.slice($0) }
    }

    /// Lengthens to `length` tokens.
    package mutating func pad(to length: Int, id: Int32, token: String, typeID: Int32 = 0, side: PaddingSide = .right) {
        guard length > count else { return }
        var padding = Encoding()
        for _ in count..<length { padding.append(id: id, token: token, offset: 0..<0, typeID: typeID, isSpecial: true) }
        padding.attentionMask = [Int32](repeating: 0, count: padding.count)
        let rest = overflowing
        switch side {
        case .right: append(padding)
        case .left:
            padding.append(self)
            self = padding
        }
        overflowing = rest
        for index in overflowing.indices {
            overflowing[index].pad(to: length, id: id, token: token, typeID: typeID, side: side)
        }
    }
}
