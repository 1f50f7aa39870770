import Foundation
import Glibc
import NibbleCore

/// The layout of the cache that huggingface_hub and its kin share.
///
/// ```
/// .locks/models--OWNER--NAME/ETAG.lock
/// models--OWNER--NAME/
///   refs/REVISION            the commit's 40 digits
///   blobs/ETAG               contents
///   snapshots/COMMIT/PATH    relative link to ../../blobs/ETAG
///   .no_exist/COMMIT/PATH    the server said there is no such file
/// ```
struct HubCache: Sendable {
    let root: URL
    let repository: HubRepository
    let usesSymlinks: Bool

    init(_ configuration: HubConfiguration, _ repository: HubRepository) {
        root = configuration.cacheFolder
        usesSymlinks = configuration.usesSymlinks
        self.repository = repository
    }

    private var folder: URL { root.appending(path: repository.folderName) }

    func snapshot(_ commit: String) -> URL { folder.appending(path: "snapshots/\(commit)") }

    func blob(_ name: String) -> URL { folder.appending(path: "blobs/\(name)") }

    func partialBlob(_ name: String) -> URL { folder.appending(path: "blobs/\(name).incomplete") }

    // MARK: Reading

    /// The commit that `revision` stood for when it was last resolved.
    func commit(of revision: String) -> String? {
        if HubName.isCommit(revision) { return revision }
        guard let text = try? String(contentsOf: folder.appending(path: "refs/\(revision)"), encoding: .utf8) else { return nil }
        let commit = text.trimmingCharacters(in: .whitespacesAndNewlines)
        return HubName.isCommit(commit) ? commit : nil
    }

    func holds(_ path: String, at commit: String) -> Bool { isThere(snapshot(commit).appending(path: path)) }

    func holdsBlob(_ name: String) -> Bool { isThere(blob(name)) }

    /// A broken link counts as absent.
    private func isThere(_ url: URL) -> Bool { FileManager.default.fileExists(atPath: url.path) }

    /// The files of a snapshot, sorted; `nil` if there is no such folder.
    func files(at commit: String) -> [String]? {
        guard let found = try? FileManager.default.subpathsOfDirectory(atPath: snapshot(commit).path) else { return nil }
        return found.filter { path in
            var isFolder: ObjCBool = false
            let url = snapshot(commit).appending(path: path)
            return FileManager.default.fileExists(atPath: url.path, isDirectory: &isFolder) && !isFolder.boolValue
        }.sorted()
    }

    // MARK: Writing

    /// Creates the repository's folders.
    func prepare() throws {
        try makeFolder(root)
        let tag = root.appending(path: "CACHEDIR.TAG")
        if !isThere(tag) {
            let text = "Signature: 8a477f597d28d172789f06886806bc55\n# Downloaded models: backups may leave this folder out.\n"
            try write(text, to: tag)
        }
        try makeFolder(folder.appending(path: "blobs"))
        try makeFolder(lock("x").deletingLastPathComponent())
    }

    func lock(_ name: String) -> URL { root.appending(path: ".locks/\(repository.folderName)/\(name).lock") }

    func setCommit(_ commit: String, of revision: String) throws {
        guard revision != commit, self.commit(of: revision) != commit else { return }
        try write(commit, to: folder.appending(path: "refs/\(revision)"))
    }

    func markAbsent(_ path: String, at commit: String) throws {
        let marker = folder.appending(path: ".no_exist/\(commit)/\(path)")
        if !isThere(marker) { try write("", to: marker) }
    }

    /// Makes a blob the file `path` of a snapshot.
    /// - Parameter isNew: nothing else can be using the blob yet.
    func link(_ name: String, as path: String, at commit: String, isNew: Bool) throws {
        let place = snapshot(commit).appending(path: path)
        guard !isThere(place) else { return }
        try makeFolder(place.deletingLastPathComponent())
        let temporary = place.deletingLastPathComponent().appending(path: ".\(UUID().uuidString).tmp")
        let up = String(repeating: "../", count: path.utf8.count { $0 == UInt8(ascii: "/") } + 2)
        if usesSymlinks, symlink("\(up)blobs/\(name)", temporary.path) == 0 { return try rename(temporary, to: place) }
        if usesSymlinks, ![EPERM, ENOTSUP, EOPNOTSUPP, ENOSYS].contains(errno) { throw failure(place, "cannot be made") }
        if isNew { return try rename(blob(name), to: place) }
        do {
            try FileManager.default.copyItem(at: blob(name), to: temporary)
        } catch {
            throw HubError.cacheFailure(path: place.path, reason: "cannot be copied: \(FileError.reason(of: error))")
        }
        try rename(temporary, to: place)
    }

    func rename(_ source: URL, to destination: URL) throws {
        guard Glibc.rename(source.path, destination.path) == 0 else {
            let error = failure(destination, "cannot be written")
            unlink(source.path)
            throw error
        }
    }

    func makeFolder(_ url: URL) throws {
        do {
            try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        } catch {
            throw HubError.cacheFailure(path: url.path, reason: "cannot be created: \(FileError.reason(of: error))")
        }
    }

    /// The system's reason for a failure that Foundation reports.
    private static func reason(_ error: any Error) -> String {
        let cause = (error as NSError).userInfo[NSUnderlyingErrorKey] as? NSError
        guard let cause, cause.domain == NSPOSIXErrorDomain else { return "the file system refuses it" }
        return String(cString: strerror(Int32(cause.code)))
    }

    /// Writes under a temporary name and renames, so that no reader sees half of the text.
    private func write(_ text: String, to url: URL) throws {
        try makeFolder(url.deletingLastPathComponent())
        let temporary = url.deletingLastPathComponent().appending(path: ".\(UUID().uuidString).tmp")
        guard FileManager.default.createFile(atPath: temporary.path, contents: Data(text.utf8)) else {
            throw failure(url, "cannot be written")
        }
        try rename(temporary, to: url)
    }

    /// - Throws: ``HubError/noSpace(folder:needed:free:)`` where fewer bytes are free.
    func requireSpace(_ byteCount: Int) throws {
        var status = statvfs()
        guard byteCount > 0, statvfs(root.path, &status) == 0 else { return }
        let free = Int(clamping: UInt64(status.f_bavail).multipliedReportingOverflow(by: UInt64(status.f_frsize)).partialValue)
        guard byteCount <= free else { throw HubError.noSpace(folder: root.path, needed: byteCount, free: free) }
    }

    private func failure(_ url: URL, _ what: String) -> HubError {
        .cacheFailure(path: url.path, reason: "\(what): \(systemMessage())")
    }
}
