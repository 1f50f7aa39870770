package import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleHub
import NibbleLoading
import NibbleTokenizers

/// The parts of a model that are needed.
package struct PretrainedFileSet: OptionSet, Sendable {
    package let rawValue: Int
    package init(rawValue: Int) { self.rawValue = rawValue }

    /// `config.json`
    package static let config = PretrainedFileSet(rawValue: 1)
    package static let tokenizer = PretrainedFileSet(rawValue: 2)
    /// Weights and `generation_config.json`
    package static let weights = PretrainedFileSet(rawValue: 4)
    package static let all: PretrainedFileSet = [.config, .tokenizer, .weights]
}

/// Finds or downloads the files of a model.
package enum PretrainedFiles {
    /// The folder, or the GGUF file, that holds a model.
    ///
    /// A folder or a GGUF file of this name is used as it is. Any other name is that of a model on the Hub: the files that
    /// are needed, and no others, are downloaded into the cache that huggingface_hub uses. Where a repository or folder holds GGUF
    /// files and no config.json, one of them is the model; `:Q4_K_M` behind a name on the Hub says which.
    /// - Parameter configuration: only ``LoadConfiguration/revision``, ``LoadConfiguration/variant``,
    ///   ``LoadConfiguration/hub`` and the progress handlers are used.
    /// - Throws: ``AutoModelError`` for a name that cannot be one on the Hub, or a file of another kind; `HubError`, `CheckpointError`,
    ///   `LoadError`.
    package static func folder(
        for name: String, _ parts: PretrainedFileSet = .all, _ configuration: LoadConfiguration = .init()
    ) async throws -> URL {
        var isFolder: ObjCBool = false
        let url = URL(filePath: name)
        let isThere = FileManager.default.fileExists(atPath: name, isDirectory: &isFolder)
        if isThere, isFolder.boolValue {
            let place = try model(in: url, configuration.ggufFile)
            if parts.contains(.config), !ModelSource.isGGUF(place) { try ModelSource.requireConfig(in: place) }
            return place
        }
        if isThere, ModelSource.isGGUF(url) { return url }
        guard !isThere else { throw AutoModelError.noModelFile(name) }
        let words = name.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard !ModelSource.isGGUF(URL(filePath: String(words[0]))), words.last != "", !name.contains("://"),
            let repository = HubRepository(String(words[0]))
        else {
            throw AutoModelError.noSuchFolder(name)
        }
        var configuration = configuration
        if words.count > 1 { configuration.ggufFile = String(words[1]) }
        let chosen = configuration
        let settings = configuration.hub ?? .standard
        return try await HubSession.run(settings) { hub in
            let snapshot = try await hub.snapshot(of: repository, revision: configuration.revision ?? "main")
            if !settings.isOffline, let reason = snapshot.isCachedBecause {
                configuration.notice?("\(repository): \(reason); the cached copy is used")
            }
            return try await PretrainedDownload(hub, snapshot, chosen).folder(parts)
        }
    }

    /// The folder, or the GGUF file in it that is meant.
    private static func model(in folder: URL, _ wanted: String?) throws -> URL {
        let hasConfig = FileManager.default.fileExists(atPath: folder.appending(path: "config.json").path)
        if hasConfig, wanted == nil { return folder }
        let selection = GGUFSelection((try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? [])
        if selection.isEmpty, wanted == nil { return folder }
        return folder.appending(path: try selection.files(wanted, in: folder.path)[0])
    }
}

/// Chooses and fetches the files of one snapshot.
private struct PretrainedDownload {
    let hub: HubSession
    let snapshot: HubSnapshot
    let configuration: LoadConfiguration

    init(_ hub: HubSession, _ snapshot: HubSnapshot, _ configuration: LoadConfiguration) {
        self.hub = hub
        self.snapshot = snapshot
        self.configuration = configuration
    }

    private static let config = "config.json"
    private static let generationConfig = "generation_config.json"

    func folder(_ parts: PretrainedFileSet) async throws -> URL {
        let selection = GGUFSelection(snapshot.files)
        let hasConfig = snapshot.files.contains(Self.config)
        if configuration.ggufFile != nil || (!hasConfig && !selection.isEmpty) {
            let files = try selection.files(configuration.ggufFile, in: "\(snapshot.repository)")
            try await fetch(files)
            try hub.publish(snapshot, absent: [])
            return snapshot.folder.appending(path: files[0])
        }
        // An optional file that does not exist is marked as absent, so that other programs do not ask for it again.
        var optional = parts.contains(.tokenizer) ? AutoTokenizer.companions : []
        if parts.contains(.weights) { optional.append(Self.generationConfig) }
        var small = optional.filter(snapshot.files.contains)
        if parts.contains(.config), !small.contains(Self.config) { small.append(Self.config) }
        if parts.contains(.tokenizer) { small += AutoTokenizer.files(among: snapshot.files).filter { !small.contains($0) } }
        try requireListed(small)
        try await fetch(small)
        if parts.contains(.weights) {
            let first = try chooseWeights()
            optional += CheckpointFiles.candidates(variant: configuration.variant)
            try await fetch([first])
            let shards = try CheckpointFiles.shards(of: snapshot.folder.appending(path: first))
            // An index may name files that the model does not need; loading says which one is missed.
            try await fetch(snapshot.isCachedBecause == nil ? shards.filter(snapshot.files.contains) : shards)
        }
        try hub.publish(snapshot, absent: optional.filter { !snapshot.files.contains($0) })
        return snapshot.folder
    }

    /// Requires that the server lists `names`. If the cache answers, ``HubSession/fetch(_:of:progress:)`` names what is missing.
    private func requireListed(_ names: [String]) throws {
        guard snapshot.isCachedBecause == nil, let name = names.first(where: { !snapshot.files.contains($0) }) else { return }
        if name == Self.config, snapshot.files.contains("adapter_config.json") {
            throw LoadError.adapterWithoutBase(folder: "\(snapshot.repository)", base: nil)
        }
        throw HubError.fileNotFound(name, snapshot.repository, revision: snapshot.revision)
    }

    private func fetch(_ names: [String]) async throws {
        try await hub.fetch(names, of: snapshot, progress: configuration.downloadProgress)
    }

    private func chooseWeights() throws -> String {
        let config = try? JSONValue(contentsOf: snapshot.folder.appending(path: Self.config))
        do {
            return try CheckpointFiles.choose(
                in: "\(snapshot.repository)", variant: configuration.variant, named: config?["transformers_weights"]?.string,
                isThere: snapshot.files.contains)
        } catch CheckpointError.noWeights(_, let tried, nil) where snapshot.isCachedBecause != nil {
            throw HubError.notCached(
                file: tried.joined(separator: " or "), snapshot.repository, revision: snapshot.revision,
                reason: snapshot.isCachedBecause ?? "")
        }
    }
}
