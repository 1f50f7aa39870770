import Foundation
import Glibc

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
        let name = ".\(url.lastPathComponent).\(UUID().uuidString).tmp"
        temporaryPath = url.deletingLastPathComponent().appending(path: name).path
        descriptor = Glibc.open(temporaryPath, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw CheckpointError.unwritable(file: url.path, reason: systemMessage()) }
    }

    deinit {
        if descriptor >= 0 { close(descriptor) }
        if !isCommitted { unlink(temporaryPath) }
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
    }

    private func failure() -> CheckpointError { .unwritable(file: url.path, reason: systemMessage()) }
}
