import Synchronization

/// The progress of a download.
public struct DownloadProgress: Sendable, Equatable {
    /// Bytes on the disk, of all files.
    public var bytes: Int
    /// Bytes of all files.
    public var totalBytes: Int

    package init(bytes: Int, totalBytes: Int) {
        self.bytes = bytes
        self.totalBytes = totalBytes
    }
}

/// Adds up the progress of files that are downloaded at the same time.
final class ProgressCount: Sendable {
    private let state: Mutex<DownloadProgress>
    private let report: (@Sendable (DownloadProgress) -> Void)?

    init(totalBytes: Int, _ report: (@Sendable (DownloadProgress) -> Void)?) {
        state = Mutex(DownloadProgress(bytes: 0, totalBytes: totalBytes))
        self.report = report
    }

    /// - Parameter bytes: negative when a file has to start again.
    func add(_ bytes: Int) {
        guard let report, bytes != 0 else { return }
        // Reported under the lock, so that reports arrive in order.
        state.withLock { state in
            state.bytes += bytes
            report(state)
        }
    }
}
