import Foundation
import Nibble
import NibbleCore
import Synchronization

/// A progress bar on standard error, redrawn at most ten times a second.
final class ProgressBar: Sendable {
    private struct State {
        /// The first call's time and bytes, from which the rate is counted.
        var start: (time: ContinuousClock.Instant, bytes: Int)?
        var lastDrawn: ContinuousClock.Instant?
    }

    private let state = Mutex(State())
    private let label: String

    /// - Parameter label: `Loading`
    init(_ label: String) { self.label = label }

    /// Whether standard error is a terminal.
    static var isUseful: Bool { isatty(STDERR_FILENO) == 1 }

    func show(_ bytes: Int, of total: Int) {
        let isLast = bytes >= total
        let text: String? = state.withLock { state in
            let now = ContinuousClock.now
            if !isLast, let last = state.lastDrawn, now - last < .milliseconds(100) { return nil }
            state.lastDrawn = now
            let start = state.start ?? (now, bytes)
            state.start = isLast ? nil : start
            return line(bytes, of: total, rate: Double(bytes - start.bytes) / max((now - start.time) / .seconds(1), 1e-3))
        }
        guard let text else { return }
        Console.error(isLast ? "\r\u{1B}[K" : "\r\(text)\u{1B}[K", newline: false)
    }

    private func line(_ bytes: Int, of total: Int, rate: Double) -> String {
        let share = total == 0 ? 1 : Double(bytes) / Double(total)
        let width = 24
        let filled = Int(share * Double(width))
        let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: width - filled)
        let shown = String(
            format: "\(label) %@ %3.0f %%  %@  %@/s", bar, share * 100, ByteCount.text(bytes), ByteCount.text(Int(max(rate, 0))))
        let seconds = rate > 0 ? Double(total - bytes) / rate : .infinity
        guard (1..<360_000).contains(seconds) else { return shown }
        return shown + String(format: "  %d:%02d left", Int(seconds) / 60, Int(seconds) % 60)
    }
}
