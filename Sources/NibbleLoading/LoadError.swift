public import NibbleCore

/// Why a model cannot be loaded, or written.
public enum LoadError: Error, Sendable, Equatable {
    /// The folder holds no config.json.
    case noConfig(folder: String)
    /// The folder holds an adapter (LoRA) alone.
    case adapterWithoutBase(folder: String, base: String?)
    /// The file cannot be read.
    case unreadable(file: String, reason: String)
    /// Weights of the model that no file holds.
    case missingWeights([String], files: [String])
    /// Weights of another shape than config.json implies.
    case mismatchedWeights([Mismatch])
    /// A quantized weight without its scales or state.
    case missingCompanion(tensor: String, companion: String, file: String)
    /// A stored quantization that contradicts itself.
    case malformedQuantization(tensor: String, file: String, expected: String, found: String)
    /// A weight to be quantized holds NaN or infinity; `index` is the first such element.
    case nonFinite(tensor: String, file: String, index: Int)
    /// The device map names a device that this machine does not have.
    case noDevice(Device, present: [Device])
    /// The folder for weights on the disk cannot be written.
    case unwritableOffloadFolder(folder: String, reason: String)
    /// Room for more tokens, or sequences, than can be counted; or for none.
    case impossibleRoom(field: String, expected: String, found: Int)
    /// config.json names a dtype that does not exist.
    case unknownDType(String)
    /// Another format was asked for than the one a checkpoint's weights are stored in.
    case alreadyQuantized(String, stored: String, wanted: String)
    /// The model to be dequantized is not quantized.
    case notQuantized(folder: String)
    /// The output folder is the model's own.
    case outputIsModel(folder: String)
    /// The folder holds no adapter_config.json.
    case notAdapter(folder: String)
    /// An adapter is of a kind that is not supported; `remedy` says what to do instead.
    case unsupportedAdapter(file: String, field: String, found: String, remedy: String)
    /// An adapter does not fit the model, or contradicts itself. `place` is a tensor, a module or a field.
    case wrongAdapter(file: String, place: String, expected: String, found: String)
    /// No adapter of this name is loaded.
    case unknownAdapter(String, loaded: [String])
    /// An adapter cannot be merged into this model as it is; `remedy` says what to do instead.
    case unmergeable(String, reason: String, remedy: String)

    /// A tensor of another shape than the config says.
    public struct Mismatch: Sendable, Equatable {
        /// In the checkpoint.
        public let name: String
        /// The shape that config.json implies.
        public let expected: Shape
        /// The shape in the checkpoint.
        public let found: Shape
    }
}

extension LoadError: CustomStringConvertible {
    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .noConfig(let folder):
            "\(folder.printablePath) has no config.json, so it is not a model folder. A model folder has config.json, weights and "
                + "tokenizer files, as save_pretrained writes them"
        case .adapterWithoutBase(let folder, let base):
            "\(folder.printablePath) holds an adapter (adapter_config.json), not a whole model. It needs its base model"
                + (base.map { ", \($0.printable())" } ?? "")
        case .unreadable(let file, let reason):
            "\(file.printablePath) cannot be read: \(reason)"
        case .missingWeights(let names, let files):
            "weights are missing from \(files.joined(separator: ", ")): \(LayerFolding.fold(names).map { $0.printable() }.joined(separator: ", "))"
        case .mismatchedWeights(let mismatches):
            "weights whose shape differs from the config's: "
                + mismatches.map { "\($0.name.printable()) is \($0.found), expected \($0.expected)" }.joined(separator: "; ")
        case .missingCompanion(let tensor, let companion, let file):
            "\(file.printablePath): \(tensor.printable()) is quantized, but \(companion) is missing"
        case .malformedQuantization(let tensor, let file, let expected, let found):
            "\(file.printablePath), tensor \(tensor.printable()): expected \(expected), found \(found)"
        case .nonFinite(let tensor, let file, let index):
            "\(file.printablePath), tensor \(tensor.printable()): element \(index) is NaN or infinite, so the weight cannot be quantized"
        case .noDevice(let device, let present):
            "the device map names \(device), which this machine does not have. It has "
                + present.map(\.description).joined(separator: ", ") + ". nibble doctor says why a GPU cannot be used"
        case .unwritableOffloadFolder(let folder, let reason):
            "the offload folder \(folder) cannot be created: \(reason). Choose another with --offload-folder"
        case .impossibleRoom(let field, let expected, let found):
            "`\(field)` must be \(expected), found \(found)"
        case .unknownDType(let word):
            "config.json: dtype \"\(word.printable())\" is not known"
        case .alreadyQuantized(let model, let stored, let wanted):
            "\(model.printablePath) is already quantized (\(stored)) and is not quantized again to \(wanted). "
                + "Write its weights in 16 bits first: nibble dequantize \(model.printablePath) --output FOLDER"
        case .notQuantized(let folder):
            "\(folder.printablePath) is not quantized, so there is nothing to dequantize"
        case .outputIsModel(let folder):
            "the output folder \(folder.printablePath) is the model's own folder. Choose another with --output"
        case .notAdapter(let folder):
            "\(folder.printablePath) has no adapter_config.json, so it is not an adapter's folder. One has adapter_config.json and "
                + "adapter_model.safetensors, as peft's save_pretrained writes them"
        case .unsupportedAdapter(let file, let field, let found, let remedy):
            "\(file.printablePath): \"\(field.printable())\" is \(found.printable()), which is not supported: \(remedy)"
        case .wrongAdapter(let file, let place, let expected, let found):
            "\(file.printablePath), \(place): expected \(expected), found \(found)"
        case .unknownAdapter(let name, let loaded):
            "no adapter \"\(name.printable())\" is loaded; loaded are "
                + (loaded.isEmpty ? "none" : loaded.map { $0.printable() }.joined(separator: ", "))
        case .unmergeable(let module, let reason, let remedy):
            "\(module) cannot be merged: \(reason). \(remedy)"
        }
    }
}

/// Shortens lists of names that differ in one number: `h.{0...29}.mlp.weight`.
enum LayerFolding {
    static func fold(_ names: [String]) -> [String] {
        var order = [String]()
        var numbers: [ByteText: [Int]] = [:]
        for name in names {
            let (pattern, number) = split(name)
            if numbers[pattern] == nil { order.append(pattern) }
            numbers[ByteText(pattern), default: []].append(number ?? -1)
        }
        return order.map { pattern in
            let found = (numbers[pattern] ?? []).sorted()
            guard let first = found.first, let last = found.last, first >= 0 else { return pattern }
            let isRun = last - first + 1 == found.count
            let text =
                first == last
                ? "\(first)" : isRun ? "{\(first)...\(last)}" : "{" + found.map(String.init).joined(separator: ",") + "}"
            return pattern.replacing("\u{0}", with: text)
        }
    }

    /// The name with its first numeric part replaced by a zero character, and the number.
    private static func split(_ name: String) -> (pattern: String, number: Int?) {
        var parts = name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        guard let place = parts.firstIndex(where: { Int($0) != nil }), let number = Int(parts[place]) else { return (name, nil) }
        parts[place] = "\u{0}"
        return (parts.joined(separator: "."), number)
    }
}
