/// Finds calls of functions in an answer as it is written.
///
/// Arguments are passed on as the model wrote them. What begins like a call and is none comes back as content, with its marks.
struct ToolCallScanner: Sendable {
    enum Output: Sendable, Equatable {
        case content(String)
        /// A call begins; calls are numbered from 0.
        case call(index: Int, id: String, name: String)
        case arguments(index: Int, String)
    }

    private enum State: Equatable {
        /// Nothing but white space has come.
        case start
        case content
        /// After an opening mark: `held` is what may be a call, `opening` the text before it.
        case head(opening: String, isBare: Bool)
        /// Within the arguments.
        case arguments(isNamed: Bool)
        /// After the arguments, up to the end of the call's object.
        case tail
        /// Between calls.
        case between
    }

    let format: ToolFormat
    /// A bare object is a call only of these.
    let names: Set<String>
    private(set) var callCount = 0
    private var state = State.start
    private var held: [UInt8] = []
    private var extent = JSONExtent()
    private var nesting = 0
    private var gap: [UInt8] = []
    private var output: [Output] = []

    init(_ format: ToolFormat, names: Set<String>) {
        self.format = format
        self.names = names
    }

    /// Whether the text so far ends after a whole call.
    var isBetweenCalls: Bool { state == .between && callCount > 0 }

    mutating func push(_ text: String) -> [Output] {
        held.append(contentsOf: text.utf8)
        while step() {}
        defer { output = [] }
        return output
    }

    /// The answer ends here.
    mutating func finish() -> [Output] {
        switch state {
        case .start, .content: emit(held)
        case .head(let opening, _): emit(Array(opening.utf8) + held)
        case .arguments, .tail: break
        case .between: break
        }
        held = []
        defer { output = [] }
        return output
    }

    // MARK: Steps

    /// One move; answers whether another may follow without more text.
    private mutating func step() -> Bool {
        switch state {
        case .start: return stepStart()
        case .content: return stepContent()
        case .head(let opening, let isBare): return stepHead(opening, isBare)
        case .arguments(let isNamed): return stepArguments(isNamed)
        case .tail: return stepTail()
        case .between: return stepBetween()
        }
    }

    private mutating func stepStart() -> Bool {
        guard let first = held.first(where: { !Self.isSpace($0) }) else { return false }
        if first == UInt8(ascii: "{"), format.allowsBareObject {
            let spaces = held.prefix { Self.isSpace($0) }
            held.removeFirst(spaces.count)
            state = .head(opening: String(decoding: spaces, as: UTF8.self), isBare: true)
        } else {
            state = .content
        }
        return true
    }

    private mutating func stepContent() -> Bool {
        for offset in held.indices {
            for opening in format.openings where held[offset...].starts(with: opening.utf8) {
                emit(Array(held[..<offset]))
                held.removeFirst(offset + opening.utf8.count)
                state = .head(opening: opening, isBare: false)
                return true
            }
        }
        let keep = undecidedCount()
        emit(Array(held.dropLast(keep)))
        held.removeFirst(held.count - keep)
        return false
    }

    private mutating func stepHead(_ opening: String, _ isBare: Bool) -> Bool {
        let offset = held.firstIndex { !Self.isSpace($0) && !($0 == UInt8(ascii: "[") && !isBare) } ?? held.count
        guard offset < held.count else {
            if held.count > 4096 { giveUp(opening) }
            return held.count == 0 ? false : state == .content
        }
        let rest = Array(held[offset...])
        let isObject = rest[0] == UInt8(ascii: "{")
        guard isObject || format.allowsNameFirst else {
            giveUp(opening)
            return true
        }
        switch isObject ? CallHead(object: rest) : CallHead(nameFirst: rest) {
        case .incomplete: return false
        case .invalid:
            giveUp(opening)
            return true
        case .found(let name, let start):
            guard accepts(name, isBare) else {
                giveUp(opening)
                return true
            }
            begin(name)
            held.removeFirst(offset + start)
            extent = JSONExtent()
            state = .arguments(isNamed: !isObject)
        case .whole(let name, let arguments, let end):
            guard accepts(name, isBare) else {
                giveUp(opening)
                return true
            }
            begin(name)
            output.append(.arguments(index: callCount - 1, arguments))
            held.removeFirst(offset + end)
            state = .between
        }
        return true
    }

    private func accepts(_ name: String, _ isBare: Bool) -> Bool { !name.isEmpty && (!isBare || names.contains(name)) }

    private mutating func begin(_ name: String) {
        output.append(.call(index: callCount, id: format.newIdentifier(), name: name))
        callCount += 1
        gap = []
    }

    private mutating func stepArguments(_ isNamed: Bool) -> Bool {
        var count = 0
        var isOver = false
        for byte in held {
            let ends = extent.take(byte)
            if ends != false { count += 1 }
            isOver = ends != nil
            if isOver { break }
        }
        if count > 0 { output.append(.arguments(index: callCount - 1, String(decoding: held[..<count], as: UTF8.self))) }
        held.removeFirst(count)
        guard isOver else { return false }
        state = isNamed ? .between : .tail
        extent = JSONExtent()
        return true
    }

    /// Skips further members of the call's object.
    private mutating func stepTail() -> Bool {
        var isInString = false
        var isEscaped = false
        var depth = 0
        for (offset, byte) in held.enumerated() {
            if isInString {
                if isEscaped {
                    isEscaped = false
                } else if byte == UInt8(ascii: "\\") {
                    isEscaped = true
                } else if byte == UInt8(ascii: "\"") {
                    isInString = false
                }
            } else if byte == UInt8(ascii: "\"") {
                isInString = true
            } else if byte == UInt8(ascii: "{") {
                depth += 1
            } else if byte == UInt8(ascii: "}") {
                depth -= 1
                if depth < 0 {
                    held.removeFirst(offset + 1)
                    state = .between
                    return true
                }
            }
        }
        return false
    }

    /// Separators and marks between calls; anything else is content again.
    private mutating func stepBetween() -> Bool {
        let filler = held.prefix { Self.isSpace($0) || $0 == UInt8(ascii: ",") || $0 == UInt8(ascii: "]") }.count
        held.removeFirst(filler)
        guard !held.isEmpty else { return false }
        for mark in format.closings + format.openings {
            if held.starts(with: mark.utf8) {
                held.removeFirst(mark.utf8.count)
                if format.openings.contains(mark) { state = .head(opening: mark, isBare: false) }
                return true
            }
            if mark.utf8.starts(with: held) { return false }
        }
        if held[0] == UInt8(ascii: "{") {
            state = .head(opening: "", isBare: format.allowsBareObject)
            return true
        }
        state = .content
        return true
    }

    // MARK: Text

    private mutating func giveUp(_ opening: String) {
        emit(Array(opening.utf8))
        // What follows is content up to the next mark.
        state = .content
        if let first = held.first {
            emit([first].prefix(first < 0x80 ? 1 : 0).map { $0 })
            if first < 0x80 { held.removeFirst() }
        }
    }

    private mutating func emit(_ bytes: [UInt8]) {
        guard !bytes.isEmpty else { return }
        let text = String(decoding: bytes, as: UTF8.self)
        if case .content(let before)? = output.last {
            output[output.count - 1] = .content(before + text)
        } else {
            output.append(.content(text))
        }
    }

    /// Bytes at the end that begin an opening mark.
    private func undecidedCount() -> Int {
        let longest = format.openings.map(\.utf8.count).max() ?? 0
        for count in stride(from: min(longest - 1, held.count), to: 0, by: -1) {
            let tail = held.suffix(count)
            if format.openings.contains(where: { $0.utf8.count > count && $0.utf8.starts(with: tail) }) { return count }
        }
        return 0
    }

    private static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 }
}
