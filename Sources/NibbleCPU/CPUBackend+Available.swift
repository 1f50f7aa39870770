internal import Foundation
package import NibbleCore

extension CPUBackend {
    /// What the system says can be allocated without swapping, within the control group's limit and this backend's budget.
    package var availableBytes: Int? {
        [CPUBackend.freeMemory, budget.limit.map { max($0 - budget.usedBytes, 0) }].compactMap { $0 }.min()
    }

    /// The same for a backend without a budget.
    package static var freeMemory: Int? {
        [AvailableMemory.system(), AvailableMemory.controlGroup()].compactMap { $0 }.min()
    }
}

private enum AvailableMemory {
    /// `MemAvailable`
    static func system() -> Int? {
        guard let text = try? String(contentsOfFile: "/proc/meminfo", encoding: .utf8),
            let line = text.textLines.first(where: { $0.hasPrefix("MemAvailable:") }),
            let kilobytes = line.split(separator: " ").dropFirst().first.flatMap({ Int($0) })
        else { return nil }
        return kilobytes * 1024
    }

    /// The group's limit less what it holds beyond the page cache.
    static func controlGroup() -> Int? {
        func number(_ name: String) -> Int? {
            (try? String(contentsOfFile: "/sys/fs/cgroup/\(name)", encoding: .utf8))
                .flatMap { Int($0.trimmingCharacters(in: .whitespacesAndNewlines)) }
        }
        guard let limit = number("memory.max"), let used = number("memory.current") else { return nil }
        let statistics = (try? String(contentsOfFile: "/sys/fs/cgroup/memory.stat", encoding: .utf8)) ?? ""
        let cached =
            statistics.textLines.first { $0.hasPrefix("file ") }
            .flatMap { Int($0.dropFirst("file ".count)) } ?? 0
        return max(limit - used + cached, 0)
    }
}
