extension Tokenizer {
    /// The ids of `text`. Text that the vocabulary lacks becomes the unknown token, or is dropped if there is none.
    ///
    /// - Parameters:
    ///   - text: any text.
    ///   - addSpecialTokens: whether to put the model's special tokens around it.
    /// - Complexity: O(n log n) at worst in the length of the text.
    public func encode(_ text: String, addSpecialTokens: Bool = true) -> [Int32] {
        tokenized(text, addSpecialTokens).ids
    }

    /// The ids of `text`, without dropping any of it.
    ///
    /// - Throws: `TokenizerError.noUnknownToken` if the vocabulary lacks a part of the text and has no unknown token.
    package func encodeCompletely(_ text: String, addSpecialTokens: Bool = true) throws(TokenizerError) -> [Int32] {
        let output = tokenized(text, addSpecialTokens)
        if let word = output.incompleteWord { throw .noUnknownToken(text: word) }
        return output.ids
    }

    private func tokenized(_ text: String, _ addSpecialTokens: Bool) -> TokenizedText {
        var output = TokenizedText(tracksOffsets: false)
        tokenize(Array(text.utf8), into: &output)
        if addSpecialTokens, let postProcessor { output.ids = postProcessor.surround(output.ids) }
        return output
    }

    /// The tokens of `text`, or of two texts that the model sees together, with their offsets.
    public func encoding(_ text: String, pair: String? = nil, addSpecialTokens: Bool = true) -> Encoding {
        join(encodings(text, pair: pair).encodings, addSpecialTokens: addSpecialTokens)
    }

    /// One encoding for each text without special tokens, and the first word with text that the vocabulary cannot represent.
    func encodings(_ text: String, pair: String?) -> (encodings: [Encoding], incompleteWord: String?) {
        let (first, incompleteWord) = plainEncoding(text)
        guard let pair else { return ([first], incompleteWord) }
        var (second, word) = plainEncoding(pair)
        second.setTypeID(1)
        return ([first, second], incompleteWord ?? word)
    }

    func join(_ encodings: [Encoding], addSpecialTokens: Bool) -> Encoding {
        var encodings = encodings
        postProcessor?.process(&encodings, addSpecialTokens: addSpecialTokens)
        var joined = Encoding()
        for encoding in encodings { joined.append(encoding) }
        joined.overflowing = overflow(encodings, addSpecialTokens)
        return joined
    }

    /// The truncated pieces, each joined with the other text.
    private func overflow(_ encodings: [Encoding], _ addSpecialTokens: Bool) -> [Encoding] {
        guard let index = encodings.firstIndex(where: { !$0.overflowing.isEmpty }) else { return [] }
        return encodings[index].overflowing.map { piece in
            var joined = Encoding()
            for (position, encoding) in encodings.enumerated() {
                var part = position == index ? piece : encoding
                if position == index, let typeID = encoding.typeIDs.first { part.setTypeID(typeID) }
                part.overflowing = []
                joined.append(part)
            }
            return joined
        }
    }

    private func plainEncoding(_ text: String) -> (Encoding, incompleteWord: String?) {
        let bytes = Array(text.utf8)
        var output = TokenizedText(tracksOffsets: true)
        tokenize(bytes, into: &output)
        let scalars = ScalarIndex(bytes)
        var encoding = Encoding()
        for (index, id) in output.ids.enumerated() {
            let token = output.addedTexts[index] ?? String(decoding: model.table.text(of: id) ?? [], as: UTF8.self)
            encoding.append(id: id, token: token, offset: scalars.range(of: output.spans[index]), typeID: 0, isSpecial: false)
        }
        return (encoding, output.incompleteWord)
    }
}

/// Numbers of scalars by byte offsets.
private struct ScalarIndex {
    private let indexOfByte: [Int]

    init(_ bytes: [UInt8]) {
        var count = 0
        var indices: [Int] = []
        indices.reserveCapacity(bytes.count + 1)
        for byte in bytes {
            if byte & 0xC0 != 0x80 { count += 1 }
            indices.append(count - 1)
        }
        indices.append(count)
        indexOfByte = indices
    }

    func range(of span: AlignedText.Span) -> Range<Int> {
        let last = indexOfByte.count - 1
        let start = indexOfByte[min(max(span.start, 0), last)]
        let end = indexOfByte[min(max(span.end, 0), last)]
        return start..<max(start, end)
    }
}

extension PostProcessor {
    /// The ids of one text with the template's tokens around them.
    func surround(_ ids: [Int32]) -> [Int32] {
        switch self {
        case .sequence(let parts): parts.reduce(ids) { $1.surround($0) }
        case .byteLevel: ids
        case .template(let template):
            template.single.flatMap { part in
                switch part {
                case .special(let name, _): template.specials[name]?.map(\.id) ?? []
                case .sequence(let isSecond, _): isSecond ? [] : ids
                }
            }
        }
    }
}
