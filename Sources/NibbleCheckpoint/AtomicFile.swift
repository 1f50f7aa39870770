import Foundation
import Glibc
import Synchronization

/// A file that is written under a temporary name in its folder and renamed when it is complete.
///
/// Until ``commit()`` an existing file of the final name is untouched. Without a commit, the temporary file is removed
/// with the last reference.
final class AtomicFile {
    let url: URL
    private let temporaryPath: String
    private var descriptor: Int32
    private var isCommitted = false

    /// - Throws: ``CheckpointError/unwritable(file:reason:)``.
    init(_ url: URL) throws {
        self.url = url
        try Self.requireRegular(url)
        let name = ".\(url.lastPathComponent).\(UUID().uuidString).tmp"
        temporaryPath = url.deletingLastPathComponent().appending(path: name).path
        descriptor = Glibc.open(temporaryPath, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw CheckpointError.unwritable(file: url.path, reason: systemMessage()) }
        UnfinishedFiles.add(temporaryPath)
    }

    /// A rename would put a file in the place of a device such as `/dev/null`.
    private static func requireRegular(_ url: URL) throws {
        var found = stat()
        guard stat(url.path, &found) == 0, found.st_mode & S_IFMT != S_IFREG else { return }
        let kind = found.st_mode & S_IFMT == S_IFDIR ? "it is a folder" : "it is a device or a pipe, not a file"
        throw CheckpointError.unwritable(file: url.path, reason: kind)
    }

    deinit {
        if descriptor >= 0 { close(descriptor) }
        if !isCommitted {
            unlink(temporaryPath)
            UnfinishedFiles.forget(temporaryPath)
        }
    }

    func write(_ bytes: UnsafeRawBufferPointer) throws {
        var rest = bytes
        while !rest.isEmpty {
            // One call writes at most 2 GiB.
            let written = Glibc.write(descriptor, rest.baseAddress, min(rest.count, 1 << 30))
            if written < 0 {
                guard errno == EINTR else { throw failure() }
                continue
            }
            rest = UnsafeRawBufferPointer(rebasing: rest[written...])
        }
    }

    /// Flushes and closes; the file still has its temporary name.
    func finish() throws {
        guard fsync(descriptor) == 0 else { throw failure() }
        let result = close(descriptor)
        descriptor = -1
        guard result == 0 else { throw failure() }
    }

    /// Gives the finished file its name.
    func commit() throws {
        guard rename(temporaryPath, url.path) == 0 else { throw failure() }
        isCommitted = true
        UnfinishedFiles.forget(temporaryPath)
    }

    private func failure() -> CheckpointError { .unwritable(file: url.path, reason: systemMessage()) }
}

/// The files and folders that this process has begun, which a program that is interrupted removes.
package enum UnfinishedFiles {
    /// Oldest first: a folder before what is in it.
    private static let paths = Mutex<[String]>([])

    package static func add(_ path: String) { paths.withLock { $0.append(path) } }

    package static func forget(_ path: String) { paths.withLock { paths in paths.removeAll { $0 == path } } }

    /// Removes files and empty folders.
    package static func removeAll() {
        paths.withLock { paths in
            for path in paths.reversed() { remove(path) }
            paths = []
        }
    }
}
