/// The result of the pipeline: ids and, if offsets are tracked, the part of the source that each stands for.
struct TokenizedText {
    let tracksOffsets: Bool
    var ids: [Int32] = []
    var spans: [AlignedText.Span] = []
    /// Texts of added tokens as they were found, by position.
    var addedTexts: [Int: String] = [:]
    /// The first word with text that the vocabulary cannot represent.
    var incompleteWord: String?

    init(tracksOffsets: Bool) { self.tracksOffsets = tracksOffsets }
}

extension Tokenizer {
    /// Runs the stages over `source` (valid UTF-8).
    func tokenize(_ source: [UInt8], into output: inout TokenizedText) {
        var cache = WordCache()
        for part in source.withUnsafeBufferPointer({ added.splitExact($0) }) {
            var text = AlignedText(source: source[part.range], tracksOffsets: output.tracksOffsets || tracksAlignment)
            if let id = part.id {
                append(id, of: text, 0..<text.bytes.count, to: &output)
                continue
            }
            if takesLanguageCode { splitLanguageCode(&text, to: &output) }
            normalizer?.normalize(&text)
            for piece in text.bytes.withUnsafeBufferPointer({ added.splitNormalized($0) }) {
                if let id = piece.id {
                    append(id, of: text, piece.range, to: &output)
                } else {
                    let isWhole = piece.range == 0..<text.bytes.count
                    encodeWords(isWhole ? text : text[piece.range], &cache, into: &output)
                }
            }
        }
    }

    /// Takes `>>kor<<` off the beginning of `text`: one token, whether it is known or not.
    private func splitLanguageCode(_ text: inout AlignedText, to output: inout TokenizedText) {
        let end: [UInt8] = [0x3C, 0x3C]
        guard text.bytes.starts(with: [0x3E, 0x3E]),
            let match = TextPattern.literal(end).matches(in: text.bytes).first,
            let id = model.table.id(of: Array(text.bytes[..<match.upperBound])) ?? specialTokens.unk?.id
        else { return }
        append(id, of: text, 0..<match.upperBound, to: &output)
        text = text[match.upperBound..<text.bytes.count]
    }

    private func append(_ id: Int32, of text: AlignedText, _ range: Range<Int>, to output: inout TokenizedText) {
        if output.tracksOffsets {
            output.addedTexts[output.ids.count] = String(decoding: text.bytes[range], as: UTF8.self)
            output.spans.append(text.sourceSpan(of: range) ?? .init(start: 0, end: 0))
        }
        output.ids.append(id)
    }

    private func encodeWords(_ text: AlignedText, _ cache: inout WordCache, into output: inout TokenizedText) {
        var words = PreTokenizedText(text)
        preTokenizer?.apply(to: &words, mayKeepBytes: model.takesBytes)
        words.text.bytes.withUnsafeBufferPointer { bytes in
            for word in words.words {
                let pieces = cache.pieces(of: UnsafeBufferPointer(rebasing: bytes[word])) { word, pieces in
                    if !model.encode(word, isByteLevel: words.isByteLevel, into: &pieces), output.incompleteWord == nil {
                        output.incompleteWord = String(decoding: word.prefix(80), as: UTF8.self)
                    }
                }
                for index in pieces { output.ids.append(cache.pieces[index].id) }
                if output.tracksOffsets { appendSpans(cache.pieces[pieces], word, words.text, to: &output) }
            }
        }
    }

    private func appendSpans(
        _ pieces: ArraySlice<ModelPiece>, _ word: Range<Int>, _ text: AlignedText, to output: inout TokenizedText
    ) {
        var start = word.lowerBound
        for (index, piece) in pieces.enumerated() {
            if piece.length == 0, index > 0, let last = output.spans.last {
                output.spans.append(last)
                continue
            }
            output.spans.append(text.sourceSpan(of: start..<(start + piece.length)) ?? .init(start: 0, end: 0))
            start += piece.length
        }
    }
}

/// The words encoded so far in this call. Natural text repeats words, so the cache avoids most of the merging.
struct WordCache {
    private static let maximumWord = 64
    private static let maximumEntries = 1 << 16

    private struct Entry {
        var hash: UInt64
        var key: Range<Int>
        var pieces: Range<Int>
    }

    /// The pieces of all words kept, and of the last word that was too long to keep.
    private(set) var pieces: [ModelPiece] = []
    private var entries: [Entry] = []
    private var keys: [UInt8] = []
    private var slots = [Int32](repeating: -1, count: 512)

    /// Where the pieces of `word` stand in `pieces`; valid until the next call.
    mutating func pieces(
        of word: UnsafeBufferPointer<UInt8>, encode: (UnsafeBufferPointer<UInt8>, inout [ModelPiece]) -> Void
    ) -> Range<Int> {
        let kept = entries.last?.pieces.upperBound ?? 0
        if pieces.count > kept { pieces.removeSubrange(kept...) }
        guard word.count <= Self.maximumWord else {
            encode(word, &pieces)
            return kept..<pieces.count
        }
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in word { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        var slot = Int(truncatingIfNeeded: (hash ^ hash >> 32) & UInt64(slots.count - 1))
        while slots[slot] >= 0 {
            let entry = entries[Int(slots[slot])]
            if entry.hash == hash, keys[entry.key].elementsEqual(word) { return entry.pieces }
            slot = (slot + 1) & (slots.count - 1)
        }
        encode(word, &pieces)
        if entries.count < Self.maximumEntries {
            slots[slot] = Int32(entries.count)
            entries.append(Entry(hash: hash, key: keys.count..<(keys.count + word.count), pieces: kept..<pieces.count))
            keys.append(contentsOf: word)
            if entries.count * 2 > slots.count { grow() }
        }
        return kept..<pieces.count
    }

    private mutating func grow() {
        slots = [Int32](repeating: -1, count: slots.count * 2)
        for (index, entry) in entries.enumerated() {
            var slot = Int(truncatingIfNeeded: (entry.hash ^ entry.hash >> 32) & UInt64(slots.count - 1))
            while slots[slot] >= 0 { slot = (slot + 1) & (slots.count - 1) }
            slots[slot] = Int32(index)
        }
    }
}
