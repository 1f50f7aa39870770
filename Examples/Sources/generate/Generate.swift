import Foundation
import Nibble

/// Continues a prompt: `generate [MODEL] [PROMPT]`.
@main struct Generate {
    static func main() async throws {
        let arguments = CommandLine.arguments.dropFirst()
        // A folder, a GGUF file, or the name of a model on the Hub, which is downloaded once.
        let name = arguments.first ?? "Models/bloom-stories"
        let prompt = arguments.dropFirst().first ?? "Once upon a time"

        // Weights are quantized while they are read; without `quantization` they stay as they are.
        let model = try await AutoModelForCausalLM.from(
            pretrained: name, quantization: BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4))
        let tokenizer = try await AutoTokenizer.from(pretrained: name)
        let config = GenerationConfig(maxNewTokens: 100, doSample: true, temperature: 0.7, topP: 0.9, seed: 2)

        print(prompt, terminator: "")
        for try await text in model.stream(try tokenizer(prompt), config, tokenizer: tokenizer) {
            print(text, terminator: "")
            fflush(nil)  // `print` waits for the end of the line.
        }
        print()
    }
}
