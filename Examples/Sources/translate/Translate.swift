import Foundation
import Nibble

/// Translates the lines of standard input, eight at a time: `translate [MODEL FROM TO]`, such as
/// `translate facebook/nllb-200-distilled-600M eng_Latn kor_Hang`. Without arguments it mends English spelling.
@main struct Translate {
    static func main() async throws {
        let arguments = Array(CommandLine.arguments.dropFirst())
        let isDefault = arguments.count < 3
        // `.translation` alone is for models of one pair of languages, such as Marian's.
        let translate = try await pipeline(
            isDefault ? .text2textGeneration : .translation(from: arguments[1], to: arguments[2]),
            model: isDefault ? "Models/t5-spelling" : arguments[0])
        // T5 models are told what to do by the words before the text.
        let prefix = isDefault ? "fix spelling: " : ""

        var options = Text2TextGenerationPipeline.Options()
        options.batchSize = 8  // The lines of a batch are computed together, which is several times faster.
        let config = GenerationConfig(maxNewTokens: 200, numBeams: 4)

        var batch: [String] = []
        func flush() async throws {
            // One list a line: with `numReturnSequences` it holds several answers.
            for answers in try await translate(batch.map { prefix + $0 }, config, options: options) {
                print(answers[0].generatedText)
            }
            fflush(nil)
            batch = []
        }
        while let line = readLine() {
            guard !line.isEmpty else {
                try await flush()
                print()
                continue
            }
            batch.append(line)
            if batch.count == options.batchSize { try await flush() }
        }
        try await flush()
    }
}
