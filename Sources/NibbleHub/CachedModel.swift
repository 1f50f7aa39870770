package import Foundation
import Glibc
import NibbleCore

/// A model of the Hub in the local cache.
package struct CachedModel: Sendable {
    package let repository: HubRepository
    /// The repository's folder in the cache.
    package let folder: URL
    /// Bytes of its files, each counted once, with those of unfinished downloads.
    package let byteCount: Int
    /// Bytes of downloads that broke off. `nibble pull` continues them.
    package let unfinishedByteCount: Int
    /// Branches and tags that were asked for, sorted, then commits that none of them stands for.
    package let revisions: [String]
    private let locks: URL

    /// The models in the cache of `configuration`, sorted by name; none if there is no cache yet.
    /// - Throws: `FileError`
    package static func all(_ configuration: HubConfiguration) throws -> [CachedModel] {
        let root = configuration.cacheFolder
        guard FileManager.default.fileExists(atPath: root.path) else { return [] }
        return try Files.names(in: root).compactMap { CachedModel($0, in: root) }.sorted {
            $0.repository.name < $1.repository.name
        }
    }

    /// `nil` if `name` is not that of a repository's folder.
    private init?(_ name: String, in root: URL) {
        guard name.hasPrefix(HubRepository.folderPrefix),
            let repository = HubRepository(
                String(name.dropFirst(HubRepository.folderPrefix.count).replacing("--", with: "/")))
        else { return nil }
        self.repository = repository
        folder = root.appending(path: name)
        locks = root.appending(path: ".locks/\(name)")
        (byteCount, unfinishedByteCount) = CachedModel.bytes(in: folder)
        revisions = CachedModel.revisions(of: folder)
    }

    /// Deletes the model from the cache.
    /// - Throws: `HubError.cacheFailure`
    package func remove() throws {
        // Out of sight first, so that no other process finds half of it.
        let hidden = folder.deletingLastPathComponent().appending(path: ".removed-\(UUID().uuidString)")
        guard rename(folder.path, hidden.path) == 0 else {
            throw HubError.cacheFailure(path: folder.path, reason: "cannot be removed: \(systemMessage())")
        }
        try? FileManager.default.removeItem(at: locks)
        do {
            try FileManager.default.removeItem(at: hidden)
        } catch {
            throw HubError.cacheFailure(path: hidden.path, reason: "cannot be removed: \(FileError.reason(of: error))")
        }
    }

    private struct FileIdentity: Hashable {
        let device: dev_t
        let number: ino_t
    }

    /// Bytes of regular files, and of those that end in `.incomplete`. Links are not followed; a file of several names counts once.
    private static func bytes(in folder: URL) -> (all: Int, unfinished: Int) {
        var (all, unfinished) = (0, 0)
        var seen: Set<FileIdentity> = []
        for path in (try? FileManager.default.subpathsOfDirectory(atPath: folder.path)) ?? [] {
            var information = stat()
            guard lstat(folder.appending(path: path).path, &information) == 0, information.st_mode & S_IFMT == S_IFREG,
                seen.insert(FileIdentity(device: information.st_dev, number: information.st_ino)).inserted
            else { continue }
            all += Int(information.st_size)
            if path.hasSuffix(".incomplete") { unfinished += Int(information.st_size) }
        }
        return (all, unfinished)
    }

    private static func revisions(of folder: URL) -> [String] {
        let references = folder.appending(path: "refs")
        let names = ((try? FileManager.default.subpathsOfDirectory(atPath: references.path)) ?? []).sorted()
        var (named, commits): ([String], Set<String>) = ([], [])
        for name in names {
            guard let commit = try? Files.text(of: references.appending(path: name)) else { continue }
            named.append(name)
            commits.insert(commit.trimmingCharacters(in: .whitespacesAndNewlines))
        }
        let snapshots = (try? Files.names(in: folder.appending(path: "snapshots"))) ?? []
        return named + snapshots.filter { !commits.contains($0) && !$0.hasPrefix(".") }.sorted()
    }
}
