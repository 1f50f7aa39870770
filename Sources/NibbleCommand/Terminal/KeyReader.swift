import Foundation

/// A key press.
enum Key: Equatable {
    case edit(LineBuffer.Edit)
    case enter
    /// Ctrl-C
    case interrupt
    /// Ctrl-D: ends the input on an empty line, else deletes forward.
    case endOfInput
    /// Ctrl-L
    case clearScreen
    case other
}

/// Reads keys from a terminal in raw mode: UTF-8 text, control characters, and the escape sequences of common terminals.
struct KeyReader {
    private let descriptor: Int32

    init(descriptor: Int32 = STDIN_FILENO) { self.descriptor = descriptor }

    /// The next key; `nil` at the end of the input.
    func next() -> Key? {
        guard let byte = byte() else { return nil }
        switch byte {
        case 0x0D, 0x0A: return .enter
        case 0x03: return .interrupt
        case 0x04: return .endOfInput
        case 0x0C: return .clearScreen
        case 0x1B: return escape()
        case 0x7F, 0x08: return .edit(.deleteBackward)
        case 0x00..<0x20: return Self.controls[byte].map(Key.edit) ?? .other
        default: return character(byte)
        }
    }

    private static let controls: [UInt8: LineBuffer.Edit] = [
        0x01: .start, 0x02: .left, 0x05: .end, 0x06: .right, 0x0B: .deleteToEnd, 0x0E: .nextLine, 0x10: .previousLine,
        0x15: .deleteToStart, 0x17: .deleteWord,
    ]

    private static let sequences: [String: LineBuffer.Edit] = [
        "A": .previousLine, "B": .nextLine, "C": .right, "D": .left, "H": .start, "F": .end, "1~": .start, "7~": .start,
        "4~": .end,
        "8~": .end, "3~": .deleteForward, "1;5C": .wordRight, "1;5D": .wordLeft, "1;3C": .wordRight, "1;3D": .wordLeft,
    ]

    /// `ESC [ … letter`, `ESC O letter`, `ESC b`, `ESC f`. A lone Escape waits for the next key and swallows it.
    private func escape() -> Key? {
        guard let first = byte() else { return nil }
        switch first {
        case UInt8(ascii: "b"): return .edit(.wordLeft)
        case UInt8(ascii: "f"): return .edit(.wordRight)
        case UInt8(ascii: "["), UInt8(ascii: "O"): break
        default: return .other
        }
        var sequence = ""
        while let byte = byte() {
            sequence.append(Character(Unicode.Scalar(byte)))
            if (0x40...0x7E).contains(byte) || sequence.count > 16 { break }
        }
        return Self.sequences[sequence].map(Key.edit) ?? .other
    }

    private func character(_ first: UInt8) -> Key? {
        var bytes = [first]
        let length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC0 ? 2 : 1
        while bytes.count < length, let byte = byte() { bytes.append(byte) }
        guard let text = String(validating: bytes, as: UTF8.self), let character = text.first else { return .other }
        return .edit(.insert(character))
    }

    private func byte() -> UInt8? {
        var byte: UInt8 = 0
        while true {
            let count = read(descriptor, &byte, 1)
            if count == 1 { return byte }
            if count < 0, errno == EINTR { continue }
            return nil
        }
    }
}
