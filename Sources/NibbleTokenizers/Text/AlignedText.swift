/// Text in the pipeline: UTF-8 bytes and, if offsets are tracked, the part of the source that each byte stands for.
///
/// The alignment rules are those of the tokenizers library, so that offsets come out equal: a replaced scalar stands for the
/// one it replaces, an inserted scalar for whatever precedes it.
struct AlignedText {
    /// A range of bytes in the source text.
    struct Span: Equatable {
        var start: Int
        var end: Int
    }

    /// One scalar of a rewritten text. `change` 0: replaces one scalar; 1: is inserted; −n: replaces one and removes the next n.
    struct Change {
        var scalar: UInt32
        var change: Int
    }

    /// Valid UTF-8.
    var bytes: [UInt8]
    /// One span a byte, or `nil` when offsets are not wanted.
    var spans: [Span]?
    /// Whether the text starts where the source starts.
    var isAtStart: Bool
    /// Where in the source the text starts; what is inserted before everything stands for nothing there.
    private var origin = 0

    init(bytes: [UInt8], spans: [Span]?, isAtStart: Bool) {
        self.bytes = bytes
        self.spans = spans
        self.isAtStart = isAtStart
    }

    /// A part of the source itself.
    init(source: ArraySlice<UInt8>, tracksOffsets: Bool) {
        bytes = Array(source)
        isAtStart = source.startIndex == 0
        origin = source.startIndex
        guard tracksOffsets else { return }
        var spans: [Span] = []
        spans.reserveCapacity(bytes.count)
        var index = source.startIndex
        while index < source.endIndex {
            let length = UTF8Text.length(ofLead: source[index])
            let span = Span(start: index, end: index + length)
            for _ in 0..<length { spans.append(span) }
            index += length
        }
        self.spans = spans
    }

    subscript(range: Range<Int>) -> AlignedText {
        var part = AlignedText(
            bytes: Array(bytes[range]), spans: spans.map { Array($0[range]) }, isAtStart: isAtStart && range.lowerBound == 0)
        part.origin = part.spans?.first?.start ?? origin
        return part
    }

    /// Whether the first character stands for the beginning of the source, as far as the alignment tells.
    var startsSource: Bool { spans?.first.map { $0.start == 0 } ?? isAtStart }

    private var nothing: Span { Span(start: origin, end: origin) }

    /// The source range that `range` stands for; `nil` without alignment or for nothing.
    func sourceSpan(of range: Range<Int>) -> Span? {
        guard let spans, !range.isEmpty, range.upperBound <= spans.count else { return nil }
        return Span(start: spans[range.lowerBound].start, end: spans[range.upperBound - 1].end)
    }
}

// MARK: - Rewriting

extension AlignedText {
    /// The range of the text that `changes` stand for is replaced by them.
    mutating func replace(_ range: Range<Int>, with changes: [Change]) {
        var newBytes: [UInt8] = []
        newBytes.reserveCapacity(range.count + 16)
        for change in changes { UTF8Text.append(change.scalar, to: &newBytes) }
        if let old = spans {
            var newSpans: [Span] = []
            newSpans.reserveCapacity(newBytes.count)
            align(changes, over: range, old, into: &newSpans)
            spans!.replaceSubrange(range, with: newSpans)
        }
        bytes.replaceSubrange(range, with: newBytes)
    }

    private func align(_ changes: [Change], over range: Range<Int>, _ old: [Span], into out: inout [Span]) {
        var offset = range.lowerBound
        for change in changes {
            let span: Span
            if change.change > 0 {
                span = offset < 1 || old.isEmpty ? nothing : old[min(offset, old.count) - 1]
            } else {
                span = offset < old.count ? old[offset] : old.last ?? nothing
                for _ in 0...(-change.change) where offset < bytes.count {
                    offset += UTF8Text.length(ofLead: bytes[offset])
                }
            }
            for _ in 0..<UTF8Text.width(change.scalar) { out.append(span) }
        }
    }

    mutating func prepend(_ text: [UInt32]) {
        guard !bytes.isEmpty, let first = text.first else { return }
        let next = UTF8Text.scalar(in: bytes, at: 0)
        var changes = [Change(scalar: first, change: 0)]
        for scalar in text.dropFirst() { changes.append(Change(scalar: scalar, change: 1)) }
        changes.append(Change(scalar: next.value, change: 1))
        replace(0..<next.length, with: changes)
    }

    /// Replaces every one of `matches` (ascending, disjoint) by `content`, which then stands for the last scalar of the match.
    mutating func replace(_ matches: [Range<Int>], by content: [UInt8]) {
        guard !matches.isEmpty else { return }
        var newBytes: [UInt8] = []
        newBytes.reserveCapacity(bytes.count + matches.count * content.count)
        var newSpans: [Span]? = spans == nil ? nil : []
        var done = 0
        for match in matches {
            newBytes.append(contentsOf: bytes[done..<match.lowerBound])
            newBytes.append(contentsOf: content)
            if let spans {
                newSpans!.append(contentsOf: spans[done..<match.lowerBound])
                let span = match.upperBound > 0 ? spans[match.upperBound - 1] : nothing
                newSpans!.append(contentsOf: repeatElement(span, count: content.count))
            }
            done = match.upperBound
        }
        newBytes.append(contentsOf: bytes[done...])
        if let spans { newSpans!.append(contentsOf: spans[done...]) }
        bytes = newBytes
        spans = newSpans
    }
}
