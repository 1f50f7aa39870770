import Foundation
import NibbleCheckpoint
import NibbleCore

/// A folder that a model is written to, with everything beside the weights that its readers need.
struct CheckpointFolder {
    private let folder: URL
    private let source: ModelSource

    /// Checks the folder before any work is done. Nothing is created.
    /// - Throws: `FileError` if a file has the folder's name; ``LoadError/outputIsModel(folder:)``.
    init(_ folder: URL, of source: ModelSource) throws {
        var isFolder: ObjCBool = false
        if FileManager.default.fileExists(atPath: folder.path, isDirectory: &isFolder), !isFolder.boolValue {
            throw FileError(path: folder.path, .created, reason: FileError.reason(ofSystemError: EEXIST))
        }
        func resolved(_ url: URL) -> String { url.standardizedFileURL.resolvingSymlinksInPath().path }
        guard !resolved(folder).hasSameBytes(as: resolved(source.folder)) else {
            throw LoadError.outputIsModel(folder: folder.path)
        }
        self.folder = folder
        self.source = source
    }

    /// - Throws: `FileError`, `CheckpointError`; then nothing with a weight file's name is left.
    func write(_ tensors: [(name: String, tensor: Tensor)], maximumShardBytes: Int) throws {
        let held = Dictionary(tensors.map { (ByteText($0.name), $0.tensor) }, uniquingKeysWith: { first, _ in first })
        try write(
            tensors.map { TensorSpecification(name: $0.name, tensor: $0.tensor) }, maximumShardBytes: maximumShardBytes
        ) { specification in
            guard let tensor = held[specification.name] else {
                throw CheckpointError.noSuchTensor(name: specification.name, files: [folder.path])
            }
            return tensor
        }
    }

    /// - Parameter tensor: makes one tensor when it is its turn.
    func write(
        _ specifications: [TensorSpecification], maximumShardBytes: Int, _ tensor: (TensorSpecification) throws -> Tensor
    ) throws {
        let isNew = !FileManager.default.fileExists(atPath: folder.path)
        if isNew { UnfinishedFiles.add(folder.path) }
        defer { UnfinishedFiles.forget(folder.path) }
        try Files.makeFolder(folder)
        do {
            try SafetensorsWriter(order: .reference).writeSharded(
                specifications, to: folder, maximumShardByteCount: maximumShardBytes, tensor: tensor)
        } catch {
            // Only an empty folder is removed.
            if isNew { rmdir(folder.path) }
            throw error
        }
    }

    func writeConfig(_ values: JSONObject) throws {
        let text = JSONValue.object(values).encoded(.pretty, sortedKeys: true) + "\n"
        try Files.write(Data(text.utf8), to: folder.appending(path: "config.json"))
    }

    // MARK: What travels with the weights

    /// Chat templates beside the default one, one file each.
    private static let templateFolder = "additional_chat_templates"
    private static let companionExtensions: Set = [
        "json", "jinja", "txt", "model", "spm", "bpe", "codes", "vocab", "tiktoken", "py",
    ]
    private static let licenseNames: Set = ["LICENSE", "NOTICE", "USE_POLICY"]
    /// Written anew, or about something else than the model that is written.
    private static let ownNames: Set = [
        "config.json", "adapter_config.json", "quantize_config.json", "quant_config.json", "hf_quant_config.json",
    ]

    /// Copies tokenizer files, chat templates, generation options, model code and licenses.
    func copyCompanions() throws {
        if ModelSource.isGGUF(source.folder) {
            return try GGUFFile(source.folder).writeMetadata(to: folder.appending(path: ModelSource.vocabularyFile))
        }
        for name in try Files.names(in: source.folder) where CheckpointFolder.isCompanion(name) { try copy(name) }
        let templates = source.folder.appending(path: CheckpointFolder.templateFolder)
        guard CheckpointFolder.isFolder(templates) else { return }
        try Files.makeFolder(folder.appending(path: CheckpointFolder.templateFolder))
        for name in try Files.names(in: templates) where name.hasByteSuffix(".jinja") {
            try copy("\(CheckpointFolder.templateFolder)/\(name)")
        }
    }

    /// Whether a file of a model folder is needed beside other weights, too.
    static func isCompanion(_ name: String) -> Bool {
        guard !name.hasBytePrefix("."), !ownNames.contains(name), !name.hasByteSuffix(".index.json") else { return false }
        if name == ModelSource.vocabularyFile { return true }
        // Indexes of variants: model.safetensors.index.fp16.json
        if name.containsBytes(".index.") { return false }
        let url = URL(filePath: name)
        return companionExtensions.contains(url.pathExtension)
            || licenseNames.contains(url.deletingPathExtension().lastPathComponent)
    }

    private func copy(_ name: String) throws {
        let original = source.folder.appending(path: name)
        guard !CheckpointFolder.isFolder(original) else { return }
        try Files.write(Files.data(of: original), to: folder.appending(path: name))
    }

    private static func isFolder(_ url: URL) -> Bool {
        var isFolder: ObjCBool = false
        return FileManager.default.fileExists(atPath: url.path, isDirectory: &isFolder) && isFolder.boolValue
    }
}
