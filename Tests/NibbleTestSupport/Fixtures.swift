public import Foundation

/// Recorded results of the reference libraries.
///
/// `Tests/Fixtures` holds a part that covers every rule. `NIBBLE_FIXTURES` may name a folder of the same layout with the full sets
/// (`fixtures/models`, `fixtures/tokenizers`, `golden`, …), which is then used instead.
public enum Fixtures {
    /// The repository's root.
    public static let repository = URL(filePath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    /// The shipped example checkpoints.
    public static let models = repository.appending(path: "Models")

    /// The full sets if `NIBBLE_FIXTURES` names them, else the repository's own.
    public static let root: URL = {
        if let full = ProcessInfo.processInfo.environment["NIBBLE_FIXTURES"], !full.isEmpty {
            return URL(filePath: full)
        }
        return repository.appending(path: "Tests/Fixtures")
    }()

    public static func url(_ path: String) -> URL { root.appending(path: path) }

    public static func exists(_ path: String) -> Bool { FileManager.default.fileExists(atPath: url(path).path) }

    /// Names of the folders directly under `path` of `root`, sorted.
    public static func folders(in path: String, of root: URL = root) -> [String] {
        let url = root.appending(path: path)
        let names = (try? FileManager.default.contentsOfDirectory(atPath: url.path)) ?? []
        return names.filter {
            var isFolder: ObjCBool = false
            return FileManager.default.fileExists(atPath: url.appending(path: $0).path, isDirectory: &isFolder)
                && isFolder.boolValue
        }.sorted()
    }

    /// A fresh empty folder, removed by the caller or by the system.
    public static func temporaryFolder() throws -> URL {
        let folder = FileManager.default.temporaryDirectory.appending(path: "nibble-tests-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        return folder
    }
}
