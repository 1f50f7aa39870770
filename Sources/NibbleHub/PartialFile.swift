import Foundation
import Glibc

/// A blob that is being downloaded: `NAME.incomplete`, hashed as it grows. It continues what an earlier run left. Use it
/// under the blob's lock.
final class PartialFile {
    let url: URL
    private let file: RemoteFile
    private var descriptor: Int32
    private(set) var byteCount = 0
    private var hash: ContentHash?

    /// - Throws: ``HubError/cacheFailure(path:reason:)``
    init(_ url: URL, for file: RemoteFile) throws {
        self.url = url
        self.file = file
        descriptor = open(url.path, O_RDWR | O_CREAT | O_CLOEXEC, 0o666)
        guard descriptor >= 0 else { throw HubError.cacheFailure(path: url.path, reason: "cannot be opened: \(systemMessage())") }
        hash = ContentHash(etag: file.etag, byteCount: file.byteCount)
        try resume()
        if byteCount > file.byteCount { try restart() }
    }

    deinit { if descriptor >= 0 { close(descriptor) } }

    /// Reads and hashes what is there. The next write appends to it.
    private func resume() throws {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 1)
        defer { buffer.deallocate() }
        while true {
            let count = read(descriptor, buffer.baseAddress, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw failure("cannot be read") }
            if count == 0 { return }
            hash?.update(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            byteCount += count
        }
    }

    func append(_ bytes: UnsafeRawBufferPointer) throws {
        hash?.update(bytes)
        var rest = bytes
        while !rest.isEmpty {
            let written = write(descriptor, rest.baseAddress, rest.count)
            if written < 0 {
                guard errno == EINTR else { throw failure("cannot be written") }
                continue
            }
            byteCount += written
            rest = UnsafeRawBufferPointer(rebasing: rest[written...])
        }
    }

    func restart() throws {
        guard ftruncate(descriptor, 0) == 0, lseek(descriptor, 0, SEEK_SET) == 0 else { throw failure("cannot be emptied") }
        byteCount = 0
        hash = ContentHash(etag: file.etag, byteCount: file.byteCount)
    }

    /// Checks length and hash and flushes the file to the disk. A file that differs from what was announced is removed.
    /// - Throws: ``HubError/wrongLength(file:expected:found:)``, ``HubError/wrongContent(file:expected:found:)``
    func finish() throws {
        guard byteCount == file.byteCount else {
            discard()
            throw HubError.wrongLength(file: file.path, expected: file.byteCount, found: byteCount)
        }
        if let hash, !hash.matches(file.etag) {
            discard()
            throw HubError.wrongContent(file: file.path, expected: file.etag, found: hash.text)
        }
        guard fsync(descriptor) == 0 else { throw failure("cannot be written") }
    }

    /// Removes the file, so that nothing of it is continued.
    func discard() { unlink(url.path) }

    private func failure(_ what: String) -> HubError { .cacheFailure(path: url.path, reason: "\(what): \(systemMessage())") }
}
