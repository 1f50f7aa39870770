import Foundation
import Synchronization

/// What became of one request.
enum Outcome: String, CaseIterable {
    case finished, cancelled, refused, failed
}

/// What was measured, in seconds.
struct Results {
    var counts: [Outcome: Int] = [:]
    var firstToken: [Double] = []
    var betweenTokens: [Double] = []
    var whole: [Double] = []
    var longestSilence = 0.0
    var tokens = 0
    /// How late requests left, because all clients were busy.
    var latest = 0.0

    static func percentiles(_ values: [Double]) -> String {
        let sorted = values.sorted()
        guard !sorted.isEmpty else { return "null" }
        let parts = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)].map { name, share in
            let value = sorted[min(Int(Double(sorted.count) * share), sorted.count - 1)]
            return "\"\(name)\": \(String(format: "%.2f", value * 1000))"
        }
        return "{\(parts.joined(separator: ", "))}"
    }
}

/// Memory and descriptors of the server's process, from /proc.
struct ServerProcess {
    let id: Int

    /// RssAnon + VmSwap, in bytes.
    var memory: Int {
        let status = (try? String(contentsOfFile: "/proc/\(id)/status", encoding: .utf8)) ?? ""
        return status.split(separator: "\n").reduce(0) { sum, line in
            guard line.hasPrefix("RssAnon:") || line.hasPrefix("VmSwap:") else { return sum }
            return sum + (line.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) } ?? 0) * 1024
        }
    }

    var descriptors: Int { (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(id)/fd").count) ?? 0 }
}

/// Numbers that do not depend on the machine's own randomness.
struct FixedRandom: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }
}
