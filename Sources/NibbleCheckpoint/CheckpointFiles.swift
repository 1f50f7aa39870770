package import Foundation
import NibbleCore

/// Finds the weights in a folder.
package enum CheckpointFiles {
    /// Opens the weights of a model folder, in the reference library's order: `model.safetensors`, its index,
    /// `pytorch_model.bin`, its index.
    /// - Parameters:
    ///   - variant: `fp16` reads `model.fp16.safetensors`, `model.safetensors.index.fp16.json` …
    ///   - useSafetensors: only safetensors (true) or only `.bin` (false).
    ///   - named: the file that a configuration names (`transformers_weights`): a safetensors file or an index of
    ///     such files, inside the folder.
    /// - Throws: ``CheckpointError``.
    package static func open(
        folder: URL, variant: String? = nil, useSafetensors: Bool? = nil, named: String? = nil
    ) throws -> any Checkpoint {
        let name = try choose(in: folder.path, variant: variant, useSafetensors: useSafetensors, named: named) {
            FileManager.default.fileExists(atPath: folder.appending(path: $0).path)
        }
        return try open(file: folder.appending(path: name))
    }

    /// The name of the file that ``open(folder:variant:useSafetensors:named:)`` opens.
    /// - Parameters:
    ///   - place: what holds the files, for error messages.
    ///   - isThere: whether it holds a file of this name.
    /// - Throws: ``CheckpointError``.
    package static func choose(
        in place: String, variant: String? = nil, useSafetensors: Bool? = nil, named: String? = nil, isThere: (String) -> Bool
    ) throws -> String {
        if let named { return try check(named: named, in: place, isThere: isThere) }
        let candidates = WeightFile.all(useSafetensors: useSafetensors)
        if let found = candidates.map({ $0.name(variant: variant) }).first(where: isThere) { return found }
        throw CheckpointError.noWeights(
            folder: place, tried: candidates.map { $0.name(variant: variant) },
            hint: hint(variant: variant, useSafetensors: useSafetensors, candidates, isThere))
    }

    /// The names that ``choose(in:variant:useSafetensors:named:isThere:)`` looks for, best first.
    package static func candidates(variant: String?) -> [String] {
        WeightFile.all(useSafetensors: nil).map { $0.name(variant: variant) }
    }

    /// The shards that an index names, sorted; none if `file` is not an index.
    /// - Throws: ``CheckpointError``.
    package static func shards(of file: URL) throws -> [String] {
        file.lastPathComponent.hasSuffix(".json") ? try ShardIndex(file).shards : []
    }

    /// Opens one file by its kind: a safetensors file, a pickle, an index of either, or a GGUF file.
    /// - Throws: ``CheckpointError``.
    package static func open(file: URL) throws -> any Checkpoint {
        let name = file.lastPathComponent
        if name.hasSuffix(".json") {
            return try name.contains(".bin.") ? WeightFile.torchIndex.open(file) : WeightFile.safetensorsIndex.open(file)
        }
        if GGUFFile.isGGUF(file) { return try GGUFCheckpoint(file) }
        return try name.hasSuffix(".safetensors") ? WeightFile.safetensors.open(file) : WeightFile.torch.open(file)
    }

    private static func check(named name: String, in place: String, isThere: (String) -> Bool) throws -> String {
        let name = try plainPath(name, namedBy: URL(filePath: place + "/config.json"))
        guard name.hasSuffix(".safetensors") || name.hasSuffix(".safetensors.index.json") else {
            throw CheckpointError.refused(
                file: "\(place)/\(name)", what: "weights named by a configuration must be a safetensors file or an index of such")
        }
        guard isThere(name) else {
            throw CheckpointError.noWeights(folder: place, tried: [name], hint: "config.json names this file")
        }
        return name
    }

    private static func hint(
        variant: String?, useSafetensors: Bool?, _ candidates: [WeightFile], _ isThere: (String) -> Bool
    ) -> String? {
        if let variant, let plain = candidates.map({ $0.name(variant: nil) }).first(where: isThere) {
            return "\(plain) is there: leave out the variant \(variant)"
        }
        if let useSafetensors {
            let others = WeightFile.all(useSafetensors: !useSafetensors).map { $0.name(variant: nil) }
            if let other = others.first(where: isThere) {
                return "\(other) is there, but use_safetensors=\(useSafetensors) leaves it out"
            }
        }
        return ["adapter_model.safetensors", "adapter_model.bin"].first(where: isThere).map {
            "\($0) is an adapter, which needs the weights of its base model"
        }
    }

    /// A relative path in plain form: without `.` parts and doubled slashes.
    /// - Throws: ``CheckpointError/unsafePath(file:name:)`` for a path that may lead out of the folder of `source`.
    static func plainPath(_ name: String, namedBy source: URL) throws -> String {
        // Bytes, because a slash and a combining mark after it are one Character.
        let parts = name.utf8.split(separator: UInt8(ascii: "/")).map { String(decoding: $0, as: UTF8.self) }
        let plain = parts.filter { $0 != "." }
        let isSafe =
            name.utf8.first != UInt8(ascii: "/") && !plain.isEmpty && !plain.contains("..")
            && !name.utf8.contains(UInt8(ascii: "\\")) && !name.utf8.contains(0)
        guard isSafe else { throw CheckpointError.unsafePath(file: source.path, name: name) }
        return plain.joined(separator: "/")
    }
}

/// The four files that may hold or list the weights, in the order in which they are tried.
private enum WeightFile {
    case safetensors, safetensorsIndex, torch, torchIndex

    static func all(useSafetensors: Bool?) -> [WeightFile] {
        switch useSafetensors {
        case nil: [.safetensors, .safetensorsIndex, .torch, .torchIndex]
        case true?: [.safetensors, .safetensorsIndex]
        case false?: [.torch, .torchIndex]
        }
    }

    /// The variant stands before the last extension.
    func name(variant: String?) -> String {
        let infix = variant.map { ".\($0)" } ?? ""
        return switch self {
        case .safetensors: "model\(infix).safetensors"
        case .safetensorsIndex: "model.safetensors.index\(infix).json"
        case .torch: "pytorch_model\(infix).bin"
        case .torchIndex: "pytorch_model.bin.index\(infix).json"
        }
    }

    func open(_ url: URL) throws -> any Checkpoint {
        switch self {
        case .safetensors: try SafetensorsFile(url)
        case .safetensorsIndex: try ShardedCheckpoint(index: url) { try SafetensorsFile($0) }
        case .torch: try TorchFile(url)
        case .torchIndex: try ShardedCheckpoint(index: url) { try TorchFile($0) }
        }
    }
}
