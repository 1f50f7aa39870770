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
            Reads input_ids (integers [B, T]) and optionally attention_mask and decoder_input_ids from a safetensors file. Writes \
            logits (float32 [B, T, V]) and, for encoder-decoders, encoder_last_hidden_state. Positions are counted by the \
            mask; the results of positions without attention are zeros.

            Example: nibble forward MODEL --input ids.safetensors --output logits.safetensors
            """)

    @Argument(help: "A model folder, a GGUF file, or owner/name on the Hub.", completion: .file())
    var model: String

    @Option(help: "Safetensors file with input_ids.", completion: .file(extensions: ["safetensors"]))
    var input: String

    @Option(help: "Safetensors file to write.", completion: .file())
    var output: String

    @OptionGroup(title: "Adapters")
    var adapters: AdapterOptionsGroup

    @OptionGroup(title: "Load options")
    var load: LoadOptionsGroup

    func run() async throws {
        let inputs = try openInput()
        let ids = try IntegerMatrix.read("input_ids", from: inputs, file: input)
        let mask = try IntegerMatrix.readIfPresent("attention_mask", from: inputs, file: input)
        if let mask, mask.map(\.count) != ids.map(\.count) {
            throw IntegerMatrix.FormError(
                file: input, name: "attention_mask", expected: "the shape of input_ids, [\(ids.count), \(ids[0].count)]",
                found: "[\(mask.count), \(mask[0].count)]")
        }
        let decoderIDs = try IntegerMatrix.readIfPresent("decoder_input_ids", from: inputs, file: input)
        try OutputFile.checkFolder(of: output)
        let pretrained = try await AutoModel.from(pretrained: model, configuration: try load.configuration(adapters))
        Report.show(pretrained.report, quiet: load.quiet)
        if decoderIDs != nil, !pretrained.isEncoderDecoder {
            Console.error("warning: \(input): decoder_input_ids has no effect, as the model has no encoder")
        }
        let result = try pretrained.forward(inputIDs: ids, attentionMask: mask, decoderInputIDs: decoderIDs)
        var tensors = [(name: "logits", tensor: result.logits)]
        if let hidden = result.encoderLastHiddenState { tensors.append(("encoder_last_hidden_state", hidden)) }
        let ending = Interrupts.beforeEnding { UnfinishedFiles.removeAll() }
        defer { ending.cancel() }
        try SafetensorsWriter().write(tensors, to: URL(filePath: output))
    }

    /// A file of another kind is not what its reader by name would call it.
    private func openInput() throws -> any Checkpoint {
        do { return try CheckpointFiles.open(file: URL(filePath: input)) } catch CheckpointError.malformed(_, nil, _, _)
            where !input.hasSuffix(".safetensors")
        {
            throw IntegerMatrix.FormError(
                file: input, name: "input_ids", expected: "a safetensors file (NAME.safetensors)", found: "another kind of file")
        }
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

    static func readIfPresent(_ name: String, from checkpoint: any Checkpoint, file: String) throws -> [[Int32]]? {
        try checkpoint.descriptor(name).map { _ in try read(name, from: checkpoint, file: file) }
    }

    /// At least one row of at least one id.
    static func read(_ name: String, from checkpoint: any Checkpoint, file: String) throws -> [[Int32]] {
        guard checkpoint.descriptor(name) != nil else {
            throw FormError(file: file, name: name, expected: "integers [B, T]", found: "no such tensor")
        }
        let tensor = try checkpoint.tensor(name)
        guard tensor.shape.rank == 2, tensor.shape.count > 0 else {
            throw FormError(file: file, name: name, expected: "shape [B, T], both at least 1", found: "\(tensor.shape)")
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

/// Files that commands write.
enum OutputFile {
    struct FolderError: Error, CustomStringConvertible {
        let file: String
        let reason: String
        var description: String { "\(file): cannot be written: \(reason)" }
    }

    /// Finds out before the work is done whether there is a folder for its result.
    /// - Throws: ``FolderError``
    static func checkFolder(of file: String) throws {
        var found = stat()
        if stat(file, &found) == 0, found.st_mode & S_IFMT != S_IFREG {
            let isFolder = found.st_mode & S_IFMT == S_IFDIR
            throw FolderError(file: file, reason: isFolder ? "it is a folder" : "it is a device or a pipe, not a file")
        }
        let folder = URL(filePath: file).deletingLastPathComponent().path
        guard access(folder, W_OK) != 0 else { return }
        throw FolderError(file: file, reason: "\(folder): \(SystemError.text(errno))")
    }
}
