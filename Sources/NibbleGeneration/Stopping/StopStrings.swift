/// Finds stop strings at the end of a row's text. Compares bytes, across token boundaries.
///
/// A string matches if it ends inside the last token. It may begin in an earlier token, and the last token may continue past it.
package struct StopStringMatcher: Sendable {
    private let strings: [(text: String, bytes: [UInt8])]
    private let longest: Int
    private let tokenBytes: @Sendable (Int32) -> [UInt8]

    package init(_ strings: [String], tokenBytes: @escaping @Sendable (Int32) -> [UInt8]) {
        self.strings = strings.map { ($0, Array($0.utf8)) }.filter { !$0.bytes.isEmpty }
        longest = self.strings.map(\.bytes.count).max() ?? 0
        self.tokenBytes = tokenBytes
    }

    /// The first of the strings, in the order given, that ends inside the last token of `ids`.
    package func match(_ ids: UnsafeBufferPointer<Int32>) -> String? {
        guard let last = ids.last, longest > 0 else { return nil }
        let lastBytes = tokenBytes(last)
        guard !lastBytes.isEmpty else { return nil }
        let tail = precedingBytes(ids.dropLast()) + lastBytes
        let firstEnd = tail.count - lastBytes.count + 1
        return strings.first { _, bytes in
            guard bytes.count <= tail.count else { return false }
            return (max(firstEnd, bytes.count)...tail.count).contains { end in
                tail[(end - bytes.count)..<end].elementsEqual(bytes)
            }
        }?.text
    }

    /// The bytes before the last token in which a match could begin. Reads at most as many tokens as the longest string has bytes.
    private func precedingBytes(_ ids: Slice<UnsafeBufferPointer<Int32>>) -> [UInt8] {
        var pieces: [[UInt8]] = []
        var count = 0
        for id in ids.suffix(longest - 1).reversed() where count < longest - 1 {
            let bytes = tokenBytes(id)
            pieces.append(bytes)
            count += bytes.count
        }
        return Array(pieces.reversed().joined().suffix(longest - 1))
    }
}
