import Foundation
import Nibble

/// What commands say about a load, on standard error.
enum Report {
    static func show(_ report: LoadReport, quiet: Bool) {
        for warning in report.warnings { Console.error("warning: \(warning)") }
        guard !quiet else { return }
        if !report.unexpected.isEmpty {
            Console.error("warning: \(report.unexpected.count) tensors of the checkpoint are not part of the model: \(report.unexpected.prefix(5).joined(separator: ", "))")
        }
    }

    /// Bytes in the largest decimal unit that leaves at least one digit.
    static func bytes(_ count: Int) -> String {
        let units = ["B", "KB", "MB", "GB", "TB"]
        var value = Double(count)
        var unit = 0
        while value >= 1000, unit < units.count - 1 {
            value /= 1000
            unit += 1
        }
        return unit == 0 ? "\(count) B" : String(format: "%.2f %@", value, units[unit])
    }
}
