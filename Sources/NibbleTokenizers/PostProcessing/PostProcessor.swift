import NibbleCore

/// Puts special tokens around encoded texts and adjusts offsets.
indirect enum PostProcessor: Sendable {
    struct Template: Sendable {
        enum Element: Sendable {
            case special(name: String, typeID: Int32)
            case sequence(isSecond: Bool, typeID: Int32)
        }

        var single: [Element]
        var pair: [Element]
        /// Ids and texts by name.
        var specials: [ByteText: [(id: Int32, token: String)]]
    }

    case sequence([PostProcessor])
    case byteLevel(addsPrefixSpace: Bool, trimsOffsets: Bool)
    case template(Template)

    /// Number of tokens that `addSpecialTokens` adds.
    func addedCount(isPair: Bool) -> Int {
        switch self {
        case .sequence(let parts): parts.reduce(0) { $0 + $1.addedCount(isPair: isPair) }
        case .byteLevel: 0
        case .template(let template):
            (isPair ? template.pair : template.single).reduce(0) { count, part in
                if case .special(let name, _) = part { count + (template.specials[name]?.count ?? 0) } else { count }
            }
        }
    }

    /// - Parameter encodings: one a text; in the end they are joined.
    func process(_ encodings: inout [Encoding], addSpecialTokens: Bool) {
        switch self {
        case .sequence(let parts):
            for part in parts { part.process(&encodings, addSpecialTokens: addSpecialTokens) }
        case .byteLevel(let addsPrefixSpace, let trimsOffsets):
            guard trimsOffsets else { return }
            for index in encodings.indices { Self.trim(&encodings[index], addsPrefixSpace) }
        case .template(let template):
            if addSpecialTokens { encodings = template.apply(to: encodings) }
        }
    }

    private static func trim(_ encoding: inout Encoding, _ addsPrefixSpace: Bool) {
        for index in encoding.ids.indices {
            let token = encoding.tokens[index].unicodeScalars
            let isSpace = { (scalar: Unicode.Scalar) in
                UnicodeClasses.isWhitespace(scalar.value) || scalar.value == ByteLevelAlphabet.scalar(of: 0x20)
            }
            var leading = token.prefix(while: isSpace).count
            let trailing = token.reversed().prefix(while: isSpace).count
            guard leading > 0 || trailing > 0 else { continue }
            var (start, end) = (encoding.offsets[index].lowerBound, encoding.offsets[index].upperBound)
            if leading > 0 {
                // A single space at the beginning was put there and stands for nothing in the text.
                if index == 0 || start == 0, addsPrefixSpace, leading == 1 { leading = 0 }
                start = min(start + leading, end)
            }
            if trailing > 0, end >= trailing { end = max(end - trailing, start) }
            encoding.offsets[index] = start..<end
        }
    }
}

extension PostProcessor.Template {
    fileprivate func apply(to encodings: [Encoding]) -> [Encoding] {
        let parts = encodings.count > 1 ? pair : single
        return parts.compactMap { part in
            switch part {
            case .special(let name, let typeID):
                var piece = Encoding()
                for (id, token) in specials[name] ?? [] {
                    piece.append(id: id, token: token, offset: 0..<0, typeID: typeID, isSpecial: true)
                }
                return piece
            case .sequence(let isSecond, let typeID):
                guard isSecond ? encodings.count > 1 : !encodings.isEmpty else { return nil }
                var piece = encodings[isSecond ? 1 : 0]
                piece.setTypeID(typeID)
                return piece
            }
        }
    }
}
