import Synchronization

/// How far a download has come.
public struct DownloadProgress: Sendable, Equatable {
    /// Bytes of all files that are on the disk.
    public var bytes: Int
    /// Bytes of all files.
    public var totalBytes: Int

    package init(bytes: Int, totalBytes: Int) {
        self.bytes = bytes
        self.totalBytes = totalBytes
    }
}

/// Adds up the progress of files that come in at the same time.
final class ProgressCount: Sendable {
    private let state: Mutex<DownloadProgress>
    private let report: (@Sendable (DownloadProgress) -> Void)?

    init(totalBytes: Int, _ report: (@Sendable (DownloadProgress) -> Void)?) {
        state = Mutex(DownloadProgress(bytes: 0, totalBytes: totalBytes))
        self.report = report
    }

    /// - Parameter bytes: may be negative, where a file has to start again.
    func add(_ bytes: Int) {
        guard let report, bytes != 0 else { return }
        // Reported under the lock: figures never run backwards by overtaking each other.
        state.withLock { state in
            state.bytes += bytes
            report(state)
        }
    }
}
