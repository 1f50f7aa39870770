import Foundation
import Nibble

/// Reads lines and performs or answers them, to the end of the input.
struct ChatConversation {
    private let session: ChatSession
    private var settings: ChatSettings
    private let editor = LineEditor()
    private let isQuiet: Bool
    /// Each warning is shown once.
    private var shownWarnings: Set<GenerationWarning> = []

    init(_ session: ChatSession, _ settings: ChatSettings, isQuiet: Bool) {
        self.session = session
        self.settings = settings
        self.isQuiet = isQuiet
    }

    var isTerminal: Bool { editor.isTerminal }

    mutating func run() async throws {
        while let line = nextLine() {
            switch ChatLine(line) {
            case .command(.exit, argument: nil), .command(.quit, argument: nil): return
            case .command(let command, let argument): perform(command, argument)
            case .message(let text) where !text.allSatisfy(\.isWhitespace):
                if ChatLine.looksLikeCommand(line) {
                    Console.error("\(line) is no command and goes to the model; /help lists commands")
                }
                try await answer(text)
            case .message: break
            }
            try Console.checkOutput()
        }
    }

    /// The next line; `nil` at the end. Ctrl-C empties the line.
    private func nextLine() -> String? {
        while true {
            switch editor.read(prompt: "> ") {
            case .text(let line): return line
            case .interrupted: Console.error("(Ctrl-D or /exit ends)")
            case .end: return nil
            }
        }
    }

    private mutating func answer(_ text: String) async throws {
        let session = session
        do {
            let answer = try await Interrupts.catching {
                try await session.answer(text, shouldStop: { Interrupts.isRequested || Console.hasFailed }) {
                    Console.output($0, newline: false)
                }
            }
            Console.output("")
            showWarnings(answer.warnings)
        } catch  where isTerminal {
            // The conversation may go on: with another text, or after /reset.
            Console.error("error: \(CommandFailure.shown(error))")
        }
    }

    private mutating func showWarnings(_ warnings: [GenerationWarning]) {
        for warning in warnings where !isQuiet && shownWarnings.insert(warning).inserted {
            Console.error("warning: \(OptionNames.inChat("\(warning)"))")
        }
    }

    private mutating func perform(_ command: ChatLineCommand, _ argument: String?) {
        if let argument, !command.takesArgument {
            Console.error("/\(command.rawValue) stands alone, found \"\(argument)\"; //\(command.rawValue) … is a message")
            return
        }
        switch command {
        case .exit, .quit: break
        case .reset: session.reset()
        case .system:
            session.system = argument
            session.reset()
        case .set: set(argument)
        case .help: Console.output(ChatLineCommand.list)
        }
    }

    private mutating func set(_ argument: String?) {
        guard let argument else { return Console.output(settings.summary) }
        do {
            try settings.set(argument)
            session.generation = settings.config
        } catch {
            Console.error("error: \(error)")
        }
    }
}
