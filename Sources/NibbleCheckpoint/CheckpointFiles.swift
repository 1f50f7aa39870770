package import Foundation

/// Finds the weights in a folder.
package enum CheckpointFiles {
    /// Opens the weights of a model folder, in the reference's order: `model.safetensors`, its index, `pytorch_model.bin`,
    /// its index.
    /// - Parameters:
    ///   - variant: `fp16` reads `model.fp16.safetensors`, `model.safetensors.index.fp16.json` …
    ///   - useSafetensors: only safetensors (true) or only `.bin` (false).
    ///   - named: the file a configuration names outright (`transformers_weights`): a safetensors file or an index of
    ///     such, inside the folder.
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
        let candidates = Candidate.all(useSafetensors: useSafetensors)
        if let found = candidates.map({ $0.name(variant: variant) }).first(where: isThere) { return found }
        throw CheckpointError.noWeights(
            folder: place, tried: candidates.map { $0.name(variant: variant) },
            hint: hint(variant: variant, useSafetensors: useSafetensors, candidates, isThere))
    }

    /// The names among which ``choose(in:variant:useSafetensors:named:isThere:)`` looks, best first.
    package static func candidates(variant: String?) -> [String] {
        Candidate.all(useSafetensors: nil).map { $0.name(variant: variant) }
    }

    /// The shards that a file names, sorted; none if it is no index.
    /// - Throws: ``CheckpointError``.
    package static func shards(of file: URL) throws -> [String] {
        guard file.lastPathComponent.hasSuffix(".json") else { return [] }
        let shards = try ShardIndex(file).shards
        for name in shards { _ = try contained(name, in: file.deletingLastPathComponent(), namedBy: file) }
        return shards
    }

    /// Opens one file by its kind: a safetensors file, a pickle, an index of either, or a GGUF file.
    /// - Throws: ``CheckpointError``.
    package static func open(file: URL) throws -> any Checkpoint {
        let name = file.lastPathComponent
        if name.hasSuffix(".json") {
            return try name.contains(".bin.") ? Candidate.torchIndex.open(file) : Candidate.safetensorsIndex.open(file)
        }
        if name.hasSuffix(".gguf") { return try GGUFCheckpoint(file) }
        return try name.hasSuffix(".safetensors") ? Candidate.safetensors.open(file) : Candidate.torch.open(file)
    }

    private static func check(named name: String, in place: String, isThere: (String) -> Bool) throws -> String {
        guard isPlain(name) else { throw CheckpointError.unsafePath(file: place + "/config.json", name: name) }
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
        variant: String?, useSafetensors: Bool?, _ candidates: [Candidate], _ isThere: (String) -> Bool
    ) -> String? {
        if let variant, let plain = candidates.map({ $0.name(variant: nil) }).first(where: isThere) {
            return "\(plain) is there: leave out the variant \(variant)"
        }
        guard let useSafetensors else { return nil }
        let others = Candidate.all(useSafetensors: !useSafetensors).map { $0.name(variant: nil) }
        return others.first(where: isThere).map { "\($0) is there, but use_safetensors=\(useSafetensors) leaves it out" }
    }

    /// The place of a file that another file names: a plain relative path that stays inside the folder.
    static func contained(_ name: String, in folder: URL, namedBy source: URL) throws -> URL {
        guard isPlain(name) else { throw CheckpointError.unsafePath(file: source.path, name: name) }
        return folder.appending(path: name)
    }

    private static func isPlain(_ name: String) -> Bool {
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        return parts.allSatisfy { !$0.isEmpty && $0 != "." && $0 != ".." } && !name.contains("\\") && !name.contains("\0")
    }
}

/// The four places where weights may be, in the order in which they are tried.
private enum Candidate {
    case safetensors, safetensorsIndex, torch, torchIndex

    static func all(useSafetensors: Bool?) -> [Candidate] {
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
