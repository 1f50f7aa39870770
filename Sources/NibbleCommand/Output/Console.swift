import Foundation
import Synchronization

/// Standard output and standard error, unbuffered.
enum Console {
    /// Why standard output could not be written.
    struct OutputError: Error, CustomStringConvertible {
        let reason: String
        var description: String { "standard output cannot be written: \(reason)" }
    }

    private static let failure = Mutex<OutputError?>(nil)

    /// Occupies the numbers of standard streams that the caller has closed, so that no file of a model gets one of them. Writes to a
    /// closed standard output fail as they should.
    static func openMissingStreams() {
        for descriptor in STDIN_FILENO...STDERR_FILENO where fcntl(descriptor, F_GETFD) < 0 {
            _ = open("/dev/null", descriptor == STDERR_FILENO ? O_WRONLY : O_RDONLY)
        }
    }

    /// Writes to standard output, unless an earlier write has failed: see ``checkOutput()``.
    @inline(never)
    static func output(_ text: String, newline: Bool = true) {
        failure.withLock { failure in
            guard failure == nil, let code = write(newline ? text + "\n" : text, to: STDOUT_FILENO) else { return }
            failure = OutputError(reason: SystemError.text(code))
        }
    }

    static func error(_ text: String, newline: Bool = true) {
        _ = write(newline ? text + "\n" : text, to: STDERR_FILENO)
    }

    /// Every command calls this when it ends, and those that go on for long now and then.
    ///
    /// - Throws: ``OutputError`` if something could not be written to standard output.
    static func checkOutput() throws {
        if let error = failure.withLock(\.self) { throw error }
    }

    static var hasFailed: Bool { failure.withLock { $0 != nil } }

    /// - Returns: `errno` of a failure.
    private static func write(_ text: String, to descriptor: Int32) -> Int32? {
        var text = text
        return text.withUTF8 { bytes in
            var rest = UnsafeRawBufferPointer(bytes)
            while let base = rest.baseAddress, !rest.isEmpty {
                let count = Foundation.write(descriptor, base, rest.count)
                if count >= 0 {
                    rest = UnsafeRawBufferPointer(rebasing: rest[count...])
                } else if errno == EAGAIN {
                    // Another program has made the descriptor non-blocking.
                    var request = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                    poll(&request, 1, -1)
                } else if errno != EINTR {
                    return errno
                }
            }
            return nil
        }
    }
}

/// The system's words for its error codes.
enum SystemError {
    /// `no such file or directory`
    static func text(_ code: Int32) -> String {
        let text = String(cString: strerror(code))
        return text.prefix(1).lowercased() + text.dropFirst()
    }
}
