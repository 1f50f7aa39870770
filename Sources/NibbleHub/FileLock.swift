import Foundation

/// An exclusive lock between processes: `flock` on a file that exists for it alone.
final class FileLock {
    private let descriptor: Int32

    private init(_ descriptor: Int32) { self.descriptor = descriptor }

    deinit { close(descriptor) }

    /// Waits until the lock is free, without blocking the thread.
    /// - Throws: ``HubError/cacheFailure(path:reason:)``; `CancellationError`.
    static func acquire(_ url: URL) async throws -> FileLock {
        while true {
            if let lock = try attempt(url.path) { return lock }
            try await Task.sleep(for: .milliseconds(50))
        }
    }

    private static func attempt(_ path: String) throws -> FileLock? {
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o666)
        guard descriptor >= 0 else { throw HubError.cacheFailure(path: path, reason: "cannot be opened: \(systemMessage())") }
        let lock = FileLock(descriptor)
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            if errno == EWOULDBLOCK || errno == EINTR { return nil }
            throw HubError.cacheFailure(path: path, reason: "cannot be locked: \(systemMessage())")
        }
        // If the previous owner removed the file, this descriptor locks a file that nobody else sees.
        var (held, named) = (stat(), stat())
        guard fstat(descriptor, &held) == 0, stat(path, &named) == 0, held.st_ino == named.st_ino, held.st_dev == named.st_dev
        else {
            return nil
        }
        return lock
    }
}

/// The text of `errno`.
func systemMessage() -> String { String(cString: strerror(errno)) }
