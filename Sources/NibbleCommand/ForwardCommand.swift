import ArgumentParser
import Foundation
import Nibble
import NibbleCheckpoint
import NibbleCore

struct ForwardCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "forward",
        abstract: "Run one forward pass and write the logits.",
        discussion: """
            Reads input_ids (integers [B, T]), optionally attention_mask and decoder_input_ids, from a safetensors file; writes \
            logits (float32 [B, T, V]) and, for encoder-decoders, encoder_last_hidden_state. Positions follow from the mask; \
            positions without attention come out as zeros.
            """)

    @Argument(help: "A model folder, a GGUF file, or owner/name on the Hub.")
    var model: String

    @Option(help: "Safetensors file with input_ids.")
    var input: String

    @Option(help: "Safetensors file to write.")
    var output: String

    @OptionGroup(title: "Load options")
    var load: LoadOptionsGroup

    func run() async throws {
        let inputs = try CheckpointFiles.open(file: URL(filePath: input))
        let ids = try IntegerMatrix.read("input_ids", from: inputs, file: input)
        let mask = try inputs.descriptor("attention_mask").map { _ in
            try IntegerMatrix.read("attention_mask", from: inputs, file: input)
        }
        let decoderIDs = try inputs.descriptor("decoder_input_ids").map { _ in
            try IntegerMatrix.read("decoder_input_ids", from: inputs, file: input)
        }
        let pretrained = try await AutoModel.from(pretrained: model, configuration: try load.configuration())
        Report.show(pretrained.report, quiet: load.quiet)
        let result = try pretrained.forward(inputIDs: ids, attentionMask: mask, decoderInputIDs: decoderIDs)
        var tensors = [(name: "logits", tensor: result.logits)]
        if let hidden = result.encoderLastHiddenState { tensors.append(("encoder_last_hidden_state", hidden)) }
        try SafetensorsWriter().write(tensors, to: URL(filePath: output))
    }
}

/// Integer tensors [B, T] of any width.
enum IntegerMatrix {
    struct FormError: Error, CustomStringConvertible {
        let file: String
        let name: String
        let expected: String
        let found: String

        var description: String { "\(file), tensor \(name): expected \(expected), found \(found)" }
    }

    static func read(_ name: String, from checkpoint: any Checkpoint, file: String) throws -> [[Int32]] {
        let tensor = try checkpoint.tensor(name)
        guard tensor.shape.rank == 2 else {
            throw FormError(file: file, name: name, expected: "shape [B, T]", found: "\(tensor.shape)")
        }
        let values: [Int]
        switch tensor.dtype {
        case .int64: values = tensor.hostElements(Int64.self).map { Int($0) }
        case .int32: values = tensor.hostElements(Int32.self).map { Int($0) }
        case .bool, .uint8: values = tensor.hostElements(UInt8.self).map { Int($0) }
        default: throw FormError(file: file, name: name, expected: "int64 or int32", found: "\(tensor.dtype)")
        }
        let width = tensor.shape[1]
        return try (0..<tensor.shape[0]).map { row in
            try values[row * width..<(row + 1) * width].map { value in
                guard let id = Int32(exactly: value) else {
                    throw FormError(file: file, name: name, expected: "ids within 32 bits", found: String(value))
                }
                return id
            }
        }
    }
}
