import Foundation
import Nibble
import NibbleCore

/// Counts and times of one `generate` command: tokens a second, time to the first token, memory.
struct GenerationStatistics {
    private var started = ContinuousClock.now
    private var first: ContinuousClock.Instant?
    private var ended = ContinuousClock.now
    private var promptTokens = 0
    private var newTokens = 0

    mutating func begin(promptTokens: Int) {
        started = .now
        self.promptTokens = promptTokens
    }

    mutating func token() {
        if first == nil { first = .now }
        newTokens += 1
    }

    mutating func tokens(_ count: Int) { newTokens += count }
    mutating func end() { ended = .now }

    var line: String {
        var parts = ["\(promptTokens) prompt tokens", "\(newTokens) new tokens"]
        if let first {
            let toFirst = (first - started) / .seconds(1)
            let decode = (ended - first) / .seconds(1)
            parts.append(String(format: "first token after %.3f s", toFirst))
            if newTokens > 1, decode > 0 { parts.append(String(format: "%.1f tokens/s", Double(newTokens - 1) / decode)) }
        } else {
            let seconds = (ended - started) / .seconds(1)
            if seconds > 0 { parts.append(String(format: "%.1f tokens/s", Double(newTokens) / seconds)) }
        }
        if let bytes = ProcessMemory.bytes("VmRSS") { parts.append("\(ByteCount.text(bytes)) resident") }
        return "[" + parts.joined(separator: ", ") + "]"
    }
}
