import Foundation
import Nibble

/// The warnings of a load, on standard error.
enum Report {
    static func show(_ report: LoadReport, quiet: Bool) {
        for warning in report.warnings { Console.error("warning: \(warning)") }
        guard !quiet else { return }
        if !report.unexpected.isEmpty {
            Console.error(
                "warning: \(report.unexpected.count) tensors of the checkpoint are not part of the model: \(report.unexpected.prefix(5).map { $0.printable() }.joined(separator: ", "))"
            )
        }
    }
}
