import Foundation

/// Reads lines. If standard input and output are a terminal, lines can be edited and have a history.
final class LineEditor {
    enum Line: Equatable {
        case text(String)
        /// Ctrl-C
        case interrupted
        case end
    }

    let isTerminal: Bool
    private var buffer = LineBuffer()
    private let keys = KeyReader()

    init() { isTerminal = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1 }

    /// - Parameter prompt: shown before the line on a terminal.
    func read(prompt: String) -> Line {
        guard isTerminal, let mode = RawMode() else { return Swift.readLine().map(Line.text) ?? .end }
        defer {
            mode.restore()
            Console.output("")
        }
        buffer.begin()
        draw(prompt)
        while let key = keys.next() {
            switch key {
            case .edit(let edit): buffer.apply(edit)
            case .enter:
                buffer.remember()
                return .text(buffer.text)
            case .interrupt: return .interrupted
            case .endOfInput:
                if buffer.characters.isEmpty { return .end }
                buffer.apply(.deleteForward)
            case .clearScreen: Console.output("\u{1B}[H\u{1B}[2J", newline: false)
            case .other: continue
            }
            draw(prompt)
        }
        return .end
    }

    /// Draws one screen line. A longer text is shifted so that the cursor is visible.
    private func draw(_ prompt: String) {
        let columns = max(Self.columns - Self.width(prompt) - 1, 8)
        var first = 0
        while Self.width(buffer.characters[first..<buffer.cursor]) > columns { first += 1 }
        var last = buffer.cursor
        while last < buffer.characters.count, Self.width(buffer.characters[first...last]) <= columns { last += 1 }
        let shown = String(buffer.characters[first..<last])
        let behind = Self.width(buffer.characters[buffer.cursor..<last])
        Console.output("\r\(prompt)\(shown)\u{1B}[K" + (behind > 0 ? "\u{1B}[\(behind)D" : ""), newline: false)
    }

    private static var columns: Int {
        var size = winsize()
        guard ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 80 }
        return Int(size.ws_col)
    }

    /// Columns that characters take on a terminal.
    private static func width(_ characters: some Sequence<Character>) -> Int {
        characters.reduce(0) { sum, character in
            let isWide = character.unicodeScalars.first.map { wide($0.value) } ?? false
            return sum + (isWide ? 2 : 1)
        }
    }

    private static func wide(_ scalar: UInt32) -> Bool {
        switch scalar {
        case 0x1100...0x115F, 0x2E80...0xA4CF, 0xAC00...0xD7A3, 0xF900...0xFAFF, 0xFE30...0xFE6F, 0xFF00...0xFF60,
            0xFFE0...0xFFE6,
            0x1F300...0x1F64F, 0x1F900...0x1F9FF, 0x20000...0x3FFFD:
            true
        default: false
        }
    }
}

/// The terminal without line buffering, echo and signals.
private struct RawMode {
    private let saved: termios

    /// `nil` if standard input is no terminal.
    init?() {
        var mode = termios()
        guard tcgetattr(STDIN_FILENO, &mode) == 0 else { return nil }
        saved = mode
        mode.c_lflag &= ~tcflag_t(ICANON | ECHO | ISIG | IEXTEN)
        mode.c_iflag &= ~tcflag_t(IXON | ICRNL)
        guard tcsetattr(STDIN_FILENO, TCSADRAIN, &mode) == 0 else { return nil }
    }

    func restore() {
        var mode = saved
        tcsetattr(STDIN_FILENO, TCSADRAIN, &mode)
    }
}
