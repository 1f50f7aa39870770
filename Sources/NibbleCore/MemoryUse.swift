/// The bytes that a backend holds: weights, caches, activations and workspace.
package struct MemoryUse: Sendable, Equatable {
    /// Bytes held now.
    package var held: Int
    /// The most bytes held so far.
    package var peak: Int
    /// The most bytes it may hold; `nil`: no limit.
    package var budget: Int?

    package init(held: Int, peak: Int, budget: Int?) {
        self.held = held
        self.peak = peak
        self.budget = budget
    }
}

/// Byte counts as text.
package enum ByteCount {
    /// In the largest decimal unit that leaves at least one digit before the point: `1.28 GB`.
    package static func text(_ bytes: Int) -> String {
        let units = ["B", "KB", "MB", "GB", "TB"]
        var value = Double(bytes)
        var unit = 0
        while value >= 1000, unit < units.count - 1 {
            value /= 1000
            unit += 1
        }
        guard unit > 0 else { return "\(bytes) B" }
        let hundredths = Int((value * 100).rounded())
        let fraction = hundredths % 100
        return "\(hundredths / 100).\(fraction < 10 ? "0" : "")\(fraction) \(units[unit])"
    }
}
