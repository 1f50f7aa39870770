/// Cuts a text before its first stop string, and holds back what may be the beginning of one.
package struct StopTextFilter: Sendable {
    private let strings: [[UInt8]]
    /// A proper beginning of one of the strings.
    private var held: [UInt8] = []

    /// - Parameter strings: empty ones are ignored.
    package init(_ strings: [String]) { self.strings = strings.map { Array($0.utf8) }.filter { !$0.isEmpty } }

    /// Takes the next piece of text and answers what can be shown of it, and the stop string
    /// that was found. After a stop string nothing more may be pushed.
    package mutating func push(_ piece: String) -> (text: String, stop: String?) {
        let old = held.count
        held += piece.utf8
        for end in old..<held.count {
            for string in strings where held[...end].ends(with: string) {
                defer { held = [] }
                return (Self.text(held[..<(end + 1 - string.count)]), Self.text(string[...]))
            }
        }
        let kept = strings.map { held.overlap(with: $0) }.max() ?? 0
        defer { held.removeFirst(held.count - kept) }
        return (Self.text(held.dropLast(kept)), nil)
    }

    /// What was held back, at the end of the text.
    package mutating func finish() -> String {
        defer { held = [] }
        return Self.text(held[...])
    }

    private static func text(_ bytes: ArraySlice<UInt8>) -> String { String(decoding: bytes, as: UTF8.self) }
}

extension ArraySlice<UInt8> {
    fileprivate func ends(with suffix: [UInt8]) -> Bool {
        suffix.count <= count && self.suffix(suffix.count).elementsEqual(suffix)
    }
}

extension [UInt8] {
    /// Bytes at the end that are a proper beginning of `string`, as many as possible.
    fileprivate func overlap(with string: [UInt8]) -> Int {
        (0..<Swift.min(string.count, count + 1)).last { suffix($0).elementsEqual(string.prefix($0)) } ?? 0
    }
}
