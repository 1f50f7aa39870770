public import Foundation

/// Finds the weights in a folder.
public enum CheckpointFiles {
    /// Opens the weights of a model folder, in the reference's order: `model.safetensors`, its index, `pytorch_model.bin`,
    /// its index.
    /// - Parameters:
    ///   - variant: `fp16` reads `model.fp16.safetensors`, `model.safetensors.index.fp16.json` …
    ///   - useSafetensors: only safetensors (true) or only `.bin` (false).
    ///   - named: the file a configuration names outright (`transformers_weights`): a safetensors file or an index of
    ///     such, inside the folder.
    /// - Throws: ``CheckpointError``.
    public static func open(
        folder: URL, variant: String? = nil, useSafetensors: Bool? = nil, named: String? = nil
    ) throws -> any Checkpoint {
        if let named { return try open(named: named, in: folder) }
        let candidates = Candidate.all(useSafetensors: useSafetensors)
        for candidate in candidates {
            let url = folder.appending(path: candidate.name(variant: variant))
            if FileManager.default.fileExists(atPath: url.path) { return try candidate.open(url) }
        }
        throw CheckpointError.noWeights(
            folder: folder.path, tried: candidates.map { $0.name(variant: variant) },
            hint: hint(folder: folder, variant: variant, useSafetensors: useSafetensors, candidates))
    }

    /// Opens one file by its kind: a safetensors file, a pickle, an index of either, or a GGUF file.
    /// - Throws: ``CheckpointError``.
    public static func open(file: URL) throws -> any Checkpoint {
        let name = file.lastPathComponent
        if name.hasSuffix(".json") {
            return try name.contains(".bin.") ? Candidate.torchIndex.open(file) : Candidate.safetensorsIndex.open(file)
        }
        if name.hasSuffix(".gguf") { return try GGUFCheckpoint(file) }
        return try name.hasSuffix(".safetensors") ? Candidate.safetensors.open(file) : Candidate.torch.open(file)
    }

    private static func open(named name: String, in folder: URL) throws -> any Checkpoint {
        let url = try contained(name, in: folder, namedBy: folder.appending(path: "config.json"))
        guard name.hasSuffix(".safetensors") || name.hasSuffix(".safetensors.index.json") else {
            throw CheckpointError.refused(
                file: url.path, what: "weights named by a configuration must be a safetensors file or an index of such")
        }
        guard FileManager.default.fileExists(atPath: url.path) else {
            throw CheckpointError.noWeights(folder: folder.path, tried: [name], hint: "config.json names this file")
        }
        return try open(file: url)
    }

    private static func hint(
        folder: URL, variant: String?, useSafetensors: Bool?, _ candidates: [Candidate]
    ) -> String? {
        func isThere(_ candidate: Candidate) -> Bool {
            FileManager.default.fileExists(atPath: folder.appending(path: candidate.name(variant: nil)).path)
        }
        if let variant, let plain = candidates.first(where: isThere) {
            return "\(plain.name(variant: nil)) is there: leave out the variant \(variant)"
        }
        if let useSafetensors, let other = Candidate.all(useSafetensors: !useSafetensors).first(where: isThere) {
            return "\(other.name(variant: nil)) is there, but use_safetensors=\(useSafetensors) leaves it out"
        }
        return nil
    }

    /// The place of a file that another file names: a plain relative path that stays inside the folder.
    static func contained(_ name: String, in folder: URL, namedBy source: URL) throws -> URL {
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        let isPlain = parts.allSatisfy { !$0.isEmpty && $0 != "." && $0 != ".." } && !name.contains("\\") && !name.contains("\0")
        guard isPlain else { throw CheckpointError.unsafePath(file: source.path, name: name) }
        return folder.appending(path: name)
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
