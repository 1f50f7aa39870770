package import Foundation
import NibbleCheckpoint
import NibbleCore

/// An adapter that a user names, with the factor of its sums.
package struct AdapterReference: Sendable, Equatable {
    package var folder: URL
    package var scale: Double

    package init(folder: URL, scale: Double = 1) {
        self.folder = folder
        self.scale = scale
    }
}

/// A folder with an adapter: its config, and its tensors by the module that they belong to. No tensor has been read.
package struct AdapterFile: Sendable {
    package let folder: URL
    package let config: AdapterConfig
    let checkpoint: any Checkpoint
    let tensors: [AdapterTensor]

    /// Reads `adapter_config.json`, and the header of `adapter_model.safetensors` or else of `adapter_model.bin`.
    /// - Throws: ``LoadError``, `JSONError`, `CheckpointError`.
    package init(folder: URL) throws {
        self.folder = folder
        config = try AdapterConfig(folder: folder)
        let names = ["adapter_model.safetensors", "adapter_model.bin"]
        let urls = names.map { folder.appending(path: $0) }
        guard let url = urls.first(where: { FileManager.default.fileExists(atPath: $0.path) }) else {
            throw CheckpointError.noWeights(folder: folder.path, tried: names, hint: "adapter_config.json is there")
        }
        let checkpoint = try CheckpointFiles.open(file: url)
        if let name = checkpoint.unreadableNames.first { _ = try checkpoint.tensor(name) }
        self.checkpoint = checkpoint
        tensors = checkpoint.names.map(AdapterTensor.init)
        guard !tensors.isEmpty else { throw wrong("the file", expected: "tensors", found: "none") }
    }

    /// A warning where the adapter names another base than the model in `model`.
    package func baseWarning(_ model: URL) -> String? {
        guard let base = config.baseModel, !base.isEmpty else { return nil }
        let name = base.splitBytes(at: "/").last.map(String.init) ?? base
        let isSame = model.pathComponents.contains { part in
            part.lowercased() == name.lowercased() || part.lowercased().hasByteSuffix("--" + name.lowercased())
        }
        return isSame
            ? nil : "\(config.file): the adapter was made for \(base.printable()), not for \(model.lastPathComponent.printable())"
    }

    /// The file with the tensors, for messages.
    var path: String { checkpoint.files.first?.path ?? folder.path }

    func wrong(_ place: String, expected: String, found: String) -> LoadError {
        .wrongAdapter(file: path, place: place, expected: expected, found: found)
    }

    /// A tensor of the file, after its dtype, shape and elements were checked.
    /// - Throws: ``LoadError/wrongAdapter(file:place:expected:found:)``, `CheckpointError`.
    func tensor(_ key: String, _ shape: Shape) throws -> Tensor {
        guard let descriptor = checkpoint.descriptor(key) else {
            throw wrong("tensor \(key.printable())", expected: "a tensor of shape \(shape)", found: "no such tensor")
        }
        guard [.float32, .float16, .bfloat16].contains(descriptor.dtype) else {
            throw wrong("tensor \(key.printable())", expected: "float32, float16 or bfloat16", found: "\(descriptor.dtype)")
        }
        guard descriptor.shape == shape else {
            throw wrong("tensor \(key.printable())", expected: "shape \(shape)", found: "\(descriptor.shape)")
        }
        let tensor = try checkpoint.tensor(key)
        if let index = tensor.firstNonFinite {
            throw wrong("tensor \(key.printable())", expected: "finite numbers", found: "NaN or infinity at element \(index)")
        }
        return tensor
    }
}

/// A tensor of an adapter's file, taken apart by its name.
struct AdapterTensor: Sendable {
    /// The name in the file.
    let key: String
    /// The module, by its name in the library that wrote the file.
    let module: String
    let part: Part

    enum Part: Sendable, Hashable {
        case a, b, biasB, embeddingA, embeddingB, magnitude, tokenRows
        /// A parameter of the base that the file holds: `weight`, `bias`.
        case parameter(String)
        /// The base's own copy beside a module that was saved as a whole.
        case original
    }

    private static let endings: [(String, Part)] = [
        ("lora_A.weight", .a), ("lora_B.weight", .b), ("lora_B.bias", .biasB), ("lora_embedding_A", .embeddingA),
        ("lora_embedding_B", .embeddingB), ("lora_magnitude_vector.weight", .magnitude),
        ("lora_magnitude_vector", .magnitude), ("token_adapter.trainable_tokens_delta", .tokenRows),
        ("trainable_tokens_delta", .tokenRows),
    ]

    init(_ key: String) {
        self.key = key
        var name = key
        for prefix in ["base_model.model.", "base_model."] where name.hasBytePrefix(prefix) {
            name = String(decoding: name.utf8.dropFirst(prefix.utf8.count), as: UTF8.self)
            break
        }
        for (ending, part) in AdapterTensor.endings where name.hasByteSuffix("." + ending) {
            module = String(decoding: name.utf8.dropLast(ending.utf8.count + 1), as: UTF8.self)
            self.part = part
            return
        }
        var parts = name.splitBytes(at: ".").map(String.init)
        let parameter = parts.removeLast()
        let isOriginal = parts.contains("original_module")
        // Old files name the adapter behind the word, too.
        if let place = parts.firstIndex(where: { ["modules_to_save", "original_module"].contains($0) }) {
            parts.removeSubrange(place...)
        }
        while let last = parts.last, ["base_layer", "token_adapter"].contains(last) {
            parts.removeLast()
        }
        module = parts.joined(separator: ".")
        part = isOriginal ? .original : .parameter(parameter)
    }

    /// The name of the parameter of the base, for ``Part/parameter(_:)``.
    var parameterName: String {
        guard case .parameter(let name) = part else { return module }
        return module.isEmpty ? name : module + "." + name
    }
}

extension Tensor {
    /// The index of the first element that is NaN or infinite.
    var firstNonFinite: Int? {
        switch dtype {
        case .float32: hostElements(UInt32.self).firstIndex { $0 & 0x7F80_0000 == 0x7F80_0000 }
        case .float16: hostElements(UInt16.self).firstIndex { $0 & 0x7C00 == 0x7C00 }
        case .bfloat16: hostElements(UInt16.self).firstIndex { $0 & 0x7F80 == 0x7F80 }
        default: nil
        }
    }
}
