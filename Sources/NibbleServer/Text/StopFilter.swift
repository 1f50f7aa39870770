/// Lets text through up to a stop string. A text that may become one is held back until it is clear.
struct StopFilter: Sendable {
    private let stops: [(text: String, bytes: [UInt8])]
    private var held: [UInt8] = []
    /// Bytes let through so far.
    private(set) var released = 0
    /// The stop string that ended the text.
    private(set) var match: String?

    init(_ stops: [String]) {
        self.stops = stops.filter { !$0.isEmpty }.map { ($0, Array($0.utf8)) }
    }

    /// The text that is certain after `text` was added. Nothing comes after a match.
    mutating func push(_ text: String) -> String {
        guard match == nil else { return "" }
        guard !stops.isEmpty else {
            released += text.utf8.count
            return text
        }
        held.append(contentsOf: text.utf8)
        if let (start, stop) = firstMatch() {
            match = stop
            return release(start)
        }
        return release(held.count - undecidedCount())
    }

    /// The rest, if the text ends here.
    mutating func finish() -> String { match == nil ? release(held.count) : "" }

    /// A stop string starts with a lead byte, so that no character is cut.
    private mutating func release(_ count: Int) -> String {
        defer { held.removeFirst(count) }
        released += count
        return String(decoding: held[..<count], as: UTF8.self)
    }

    private func firstMatch() -> (start: Int, stop: String)? {
        for start in held.indices {
            for stop in stops where held[start...].starts(with: stop.bytes) { return (start, stop.text) }
        }
        return nil
    }

    /// Bytes at the end that begin a stop string.
    private func undecidedCount() -> Int {
        let longest = min(stops.map(\.bytes.count).max() ?? 0, held.count + 1)
        for count in stride(from: longest - 1, to: 0, by: -1) {
            let tail = held.suffix(count)
            if stops.contains(where: { $0.bytes.count > count && $0.bytes.starts(with: tail) }) { return count }
        }
        return 0
    }
}
