import Foundation
import Nibble
import Synchronization

/// A loading bar on standard error, redrawn at most ten times a second.
final class ProgressBar: Sendable {
    private struct State {
        var started = ContinuousClock.now
        var lastDrawn: ContinuousClock.Instant?
    }

    private let state = Mutex(State())

    /// `nil` where standard error is no terminal.
    static func onTerminal() -> ProgressBar? { isatty(STDERR_FILENO) == 1 ? ProgressBar() : nil }

    func show(_ progress: LoadProgress) {
        let isLast = progress.bytes >= progress.totalBytes
        let seconds: Double? = state.withLock { state in
            let now = ContinuousClock.now
            if !isLast, let last = state.lastDrawn, now - last < .milliseconds(100) { return nil }
            state.lastDrawn = now
            return (now - state.started) / .seconds(1)
        }
        guard let seconds else { return }
        Console.error(isLast ? "\r\u{1B}[K" : "\r\(line(progress, seconds: seconds))\u{1B}[K", newline: false)
    }

    private func line(_ progress: LoadProgress, seconds: Double) -> String {
        let share = progress.totalBytes == 0 ? 1 : Double(progress.bytes) / Double(progress.totalBytes)
        let width = 24
        let filled = Int(share * Double(width))
        let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: width - filled)
        let gigabytes = Double(progress.bytes) / 1e9
        return String(
            format: "Loading %@ %3.0f %%  %.2f GB  %.2f GB/s", bar, share * 100, gigabytes, gigabytes / max(seconds, 1e-3))
    }
}

/// Standard output and standard error, unbuffered where text is streamed.
enum Console {
    static func output(_ text: String, newline: Bool = true) { write(text + (newline ? "\n" : ""), to: .standardOutput) }
    static func error(_ text: String, newline: Bool = true) { write(text + (newline ? "\n" : ""), to: .standardError) }

    private static func write(_ text: String, to handle: FileHandle) { try? handle.write(contentsOf: Data(text.utf8)) }
}
