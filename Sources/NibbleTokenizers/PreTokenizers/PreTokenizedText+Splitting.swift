extension PreTokenizedText {
    /// Cuts every word at the matches that `find` reports within it.
    mutating func split(
        _ behavior: PreTokenizer.Behavior, isInverted: Bool = false, find: (UnsafeBufferPointer<UInt8>) -> [Range<Int>]
    ) {
        var cut: [Range<Int>] = []
        cut.reserveCapacity(words.count * 2)
        text.bytes.withUnsafeBufferPointer { bytes in
            for word in words {
                let matches = find(UnsafeBufferPointer(rebasing: bytes[word]))
                Self.cut(word, at: matches, behavior, isInverted, into: &cut)
            }
        }
        words = cut
    }

    /// Cuts every word at each scalar that satisfies `isDelimiter`.
    mutating func split(_ behavior: PreTokenizer.Behavior, where isDelimiter: (UInt32) -> Bool) {
        split(behavior) { bytes in
            var matches: [Range<Int>] = []
            var index = 0
            while index < bytes.count {
                let (scalar, length) = UTF8Text.scalar(in: bytes, at: index)
                if isDelimiter(scalar) { matches.append(index..<(index + length)) }
                index += length
            }
            return matches
        }
    }

    private static func cut(
        _ word: Range<Int>, at matches: [Range<Int>], _ behavior: PreTokenizer.Behavior, _ isInverted: Bool,
        into out: inout [Range<Int>]
    ) {
        if matches.isEmpty, !isInverted {
            out.append(word)
            return
        }
        var cutter = Cutter(behavior: behavior, out: out)
        out = []
        var done = word.lowerBound
        for match in matches {
            let start = word.lowerBound + match.lowerBound
            let end = word.lowerBound + match.upperBound
            if done < start { cutter.add(done..<start, isMatch: isInverted) }
            cutter.add(start..<end, isMatch: !isInverted)
            done = end
        }
        if done < word.upperBound { cutter.add(done..<word.upperBound, isMatch: isInverted) }
        out = cutter.finish()
    }

    /// Joins matches and gaps as the behaviour says. Pieces that end up empty are dropped.
    private struct Cutter {
        let behavior: PreTokenizer.Behavior
        var out: [Range<Int>]
        private var current: Range<Int>?
        private var previousIsMatch = false

        init(behavior: PreTokenizer.Behavior, out: [Range<Int>]) {
            self.behavior = behavior
            self.out = out
        }

        mutating func add(_ piece: Range<Int>, isMatch: Bool) {
            let joins: Bool
            switch behavior {
            case .removed:
                if !isMatch { emit(piece) }
                return
            case .isolated:
                emit(piece)
                return
            case .contiguous: joins = isMatch == previousIsMatch
            case .mergedWithPrevious: joins = isMatch && !previousIsMatch
            case .mergedWithNext: joins = !isMatch && previousIsMatch
            }
            previousIsMatch = isMatch
            if joins, let start = current?.lowerBound {
                current = start..<piece.upperBound
            } else {
                flush()
                current = piece
            }
        }

        mutating func finish() -> [Range<Int>] {
            flush()
            return out
        }

        private mutating func flush() {
            if let current { emit(current) }
            current = nil
        }

        private mutating func emit(_ piece: Range<Int>) { if !piece.isEmpty { out.append(piece) } }
    }
}

// MARK: - Rewriting words

extension PreTokenizedText {
    mutating func applyByteLevel(addsPrefixSpace: Bool, splits: Bool, writesCharacters: Bool) {
        if addsPrefixSpace {
            rewrite { word in
                guard let first = word.bytes.first, first != 0x20 else { return }
                word.prepend([0x20])
            }
        }
        if splits {
            split(.isolated) { PatternMatcher.matches(of: PreTokenizer.byteLevelPattern, in: $0) }
        }
        guard writesCharacters else {
            isByteLevel = true
            return
        }
        rewrite { word in
            var changes: [AlignedText.Change] = []
            changes.reserveCapacity(word.bytes.count)
            for byte in word.bytes {
                changes.append(.init(scalar: ByteLevelAlphabet.scalar(of: byte), change: byte & 0xC0 == 0x80 ? 1 : 0))
            }
            word.replace(0..<word.bytes.count, with: changes)
        }
    }

    mutating func applyMetaspace(_ replacement: UInt32, _ scheme: PreTokenizer.PrependScheme, splits: Bool) {
        var mark: [UInt8] = []
        UTF8Text.append(replacement, to: &mark)
        rewrite { word in
            word.replace(TextPattern.literal([0x20]).matches(in: word.bytes), by: mark)
            let isWanted = scheme == .always || (scheme == .first && word.startsSource)
            if isWanted, !word.bytes.starts(with: mark) { word.prepend([replacement]) }
        }
        if splits {
            split(.mergedWithNext) { TextPattern.literal(mark).matches(in: $0) }
        }
    }

    /// Rewrites every word by itself and lays the results out anew.
    private mutating func rewrite(_ change: (inout AlignedText) -> Void) {
        var out = AlignedText(bytes: [], spans: text.spans == nil ? nil : [], isAtStart: text.isAtStart)
        out.bytes.reserveCapacity(text.bytes.count + words.count)
        var ranges: [Range<Int>] = []
        ranges.reserveCapacity(words.count)
        for word in words {
            var part = text[word]
            change(&part)
            let start = out.bytes.count
            out.bytes.append(contentsOf: part.bytes)
            if let spans = part.spans { out.spans!.append(contentsOf: spans) }
            if out.bytes.count > start { ranges.append(start..<out.bytes.count) }
        }
        text = out
        words = ranges
    }
}
