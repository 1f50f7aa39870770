/// A line that a user enters in a chat.
enum ChatLine: Equatable {
    case message(String)
    case command(ChatLineCommand, argument: String?)

    /// A line is a command if its first word is one. Other lines are messages, with the first of two leading slashes removed.
    init(_ line: String) {
        let parts = line.split(maxSplits: 1, omittingEmptySubsequences: true, whereSeparator: \.isWhitespace)
        if line.utf8.first == UInt8(ascii: "/"), let word = parts.first,
            let command = ChatLineCommand(rawValue: String(word.dropFirst()))
        {
            self = .command(command, argument: parts.count > 1 ? String(parts[1]) : nil)
        } else {
            self = .message(line.utf8.starts(with: "//".utf8) ? String(line.dropFirst()) : line)
        }
    }

    /// Whether the line is one word behind a slash, as a mistyped command would be.
    static func looksLikeCommand(_ line: String) -> Bool {
        line.utf8.first == UInt8(ascii: "/") && line.utf8.count > 1
            && line.utf8.dropFirst().allSatisfy { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0) }
    }
}

/// The commands of a chat.
enum ChatLineCommand: String, CaseIterable {
    case reset, system, set, help, exit, quit

    var takesArgument: Bool { self == .system || self == .set }

    static let list = """
        /reset           forget the conversation
        /system TEXT     tell the model something before all messages, and start over; without TEXT: nothing
        /set NAME VALUE  change a generation option, such as /set temperature 0.4 or /set max-new-tokens 200;
                         /set NAME default takes the change back, /set lists the changes
        /help            this list
        /exit            end (as Ctrl-D)
        Ctrl-C           stop the answer; what was said of it is kept
        Any other line is a message. A message that begins with a command's name is written with two slashes: //reset
        """
}
