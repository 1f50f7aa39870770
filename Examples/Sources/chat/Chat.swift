import Foundation
import Nibble

/// A chat in the terminal: `chat [MODEL]`. Ctrl-D ends it.
@main struct Chat {
    static func main() async throws {
        let given = CommandLine.arguments.dropFirst().first
        let model = try await AutoModelForCausalLM.from(pretrained: given ?? "Models/bloom-stories")
        let tokenizer = try await AutoTokenizer.from(pretrained: given ?? "Models/bloom-stories")

        // A chat model brings its template (`template: nil`). The stories model has none: here it goes on with what was said.
        let story = "{% for message in messages %}{{ message.content }} {% endfor %}"
        let chat = try ChatSession(
            model: model, tokenizer: tokenizer, template: given == nil ? story : nil,
            generation: GenerationConfig(maxNewTokens: given == nil ? 40 : 500, seed: 1))

        // The session keeps messages and cache: the model reads only what is new.
        while let message = ask() {
            do {
                try await chat.answer(message) { text in
                    print(text, terminator: "")
                    fflush(nil)
                }
                print()
            } catch {
                // Every error is a sentence for the user. The chat is as it was before the message.
                print("\(error)")
            }
        }
    }

    static func ask() -> String? {
        print("> ", terminator: "")
        fflush(nil)
        return readLine()
    }
}
