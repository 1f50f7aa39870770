package import Foundation
import Glibc

/// A model of the Hub in the local cache.
package struct CachedModel: Sendable {
    package let repository: HubRepository
    /// The repository's folder in the cache.
    package let folder: URL
    /// Bytes of its files, each counted once.
    package let byteCount: Int
    private let locks: URL

    /// The models in the cache of `configuration`, sorted by name.
    package static func all(_ configuration: HubConfiguration) -> [CachedModel] {
        let root = configuration.cacheFolder
        let names = (try? FileManager.default.contentsOfDirectory(atPath: root.path)) ?? []
        return names.compactMap { name in
            guard name.hasPrefix(HubRepository.folderPrefix),
                let repository = HubRepository(
                    String(name.dropFirst(HubRepository.folderPrefix.count).replacing("--", with: "/")))
            else { return nil }
            let folder = root.appending(path: name)
            return CachedModel(
                repository: repository, folder: folder, byteCount: bytes(in: folder),
                locks: root.appending(path: ".locks/\(name)"))
        }.sorted { $0.repository.name < $1.repository.name }
    }

    /// Deletes the model from the cache.
    /// - Throws: `HubError.cacheFailure`
    package func remove() throws {
        // Out of sight first, so that no other process finds half of it.
        let hidden = folder.deletingLastPathComponent().appending(path: ".removed-\(UUID().uuidString)")
        guard rename(folder.path, hidden.path) == 0 else {
            throw HubError.cacheFailure(path: folder.path, reason: "cannot be removed: \(String(cString: strerror(errno)))")
        }
        try? FileManager.default.removeItem(at: locks)
        do {
            try FileManager.default.removeItem(at: hidden)
        } catch {
            throw HubError.cacheFailure(path: hidden.path, reason: "cannot be removed: \(error.localizedDescription)")
        }
    }

    /// Bytes of regular files; links are not followed.
    private static func bytes(in folder: URL) -> Int {
        let paths = (try? FileManager.default.subpathsOfDirectory(atPath: folder.path)) ?? []
        return paths.reduce(0) { sum, path in
            var information = stat()
            guard lstat(folder.appending(path: path).path, &information) == 0, information.st_mode & S_IFMT == S_IFREG else {
                return sum
            }
            return sum + Int(information.st_size)
        }
    }
}
