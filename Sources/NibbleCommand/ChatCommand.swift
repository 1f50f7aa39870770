import ArgumentParser
import Foundation
import Nibble

struct ChatCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "chat",
        abstract: "Talk with a model in the terminal.",
        discussion: """
            Answers stream as they are made; the whole conversation counts for the next one. Ctrl-C stops an answer, Ctrl-D or \
            /exit ends. /help lists the commands. Sampling follows the model's generation_config.json unless flags say \
            otherwise. Where standard input is no terminal, each of its lines is a message, and only answers are printed.
            """)

    @Argument(help: "A model folder, a GGUF file, or owner/name on the Hub.")
    var model: String

    @Option(help: "What the model is told before all messages.")
    var system: String?

    @OptionGroup(title: "Chat options")
    var chat: ChatOptionsGroup

    @OptionGroup(title: "Generation options")
    var generation: GenerationOptionsGroup

    @OptionGroup(title: "Load options")
    var load: LoadOptionsGroup

    func run() async throws {
        let config = try generation.config(isGreedyByDefault: false)
        let configuration = try load.configuration()
        let tokenizer = try await AutoTokenizer.from(pretrained: model, configuration: configuration)
        let pretrained = try await AutoModelForCausalLM.from(pretrained: model, configuration: configuration)
        Report.show(pretrained.report, quiet: load.quiet)
        let session = try ChatSession(
            model: pretrained, tokenizer: tokenizer, system: system, template: try chat.template(), generation: config)
        let editor = LineEditor()
        if editor.isTerminal, !load.quiet { Console.error("Talk to \(model). /help lists the commands, Ctrl-D ends.") }
        while let line = nextLine(editor) {
            if line.hasPrefix("/") {
                guard perform(line, session) else { return }
            } else if !line.allSatisfy(\.isWhitespace) {
                try await answer(line, session, isTerminal: editor.isTerminal)
            }
        }
    }

    /// The next line; `nil` at the end. Ctrl-C empties the line.
    private func nextLine(_ editor: LineEditor) -> String? {
        while true {
            switch editor.read(prompt: "> ") {
            case .text(let line): return line
            case .interrupted: Console.error("(Ctrl-D or /exit ends)")
            case .end: return nil
            }
        }
    }

    private func answer(_ line: String, _ session: ChatSession, isTerminal: Bool) async throws {
        do {
            _ = try await Interrupts.catching {
                try await session.answer(line, shouldStop: { Interrupts.isRequested }) { Console.output($0, newline: false) }
            }
            Console.output("")
        } catch  where isTerminal {
            // The conversation may go on: with another text, or after /reset.
            Console.error("error: \(error)")
        }
    }

    /// - Returns: false at the end.
    private func perform(_ line: String, _ session: ChatSession) -> Bool {
        let parts = line.split(maxSplits: 1, omittingEmptySubsequences: true, whereSeparator: \.isWhitespace)
        let rest = parts.count > 1 ? String(parts[1]) : nil
        switch parts[0] {
        case "/exit", "/quit": return false
        case "/reset": session.reset()
        case "/system":
            session.system = rest
            session.reset()
        case "/help": Console.output(Self.help)
        default: Console.error("no command \(parts[0]); /help lists them")
        }
        return true
    }

    private static let help = """
        /reset        forget the conversation
        /system TEXT  tell the model something before all messages, and start over; without TEXT: nothing
        /help         this list
        /exit         end (as Ctrl-D)
        Ctrl-C        stop the answer; what was said of it is kept
        """
}
