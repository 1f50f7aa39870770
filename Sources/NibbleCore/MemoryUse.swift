/// What a backend has allocated, in bytes: weights, caches, activations, workspace.
public struct MemoryUse: Sendable, Equatable {
    /// Now.
    public var held: Int
    /// At most so far.
    public var peak: Int
    /// The most it may hold; `nil` means no limit was set.
    public var budget: Int?

    public init(held: Int, peak: Int, budget: Int?) {
        self.held = held
        self.peak = peak
        self.budget = budget
    }
}

/// Byte counts for people.
public enum ByteCount {
    /// In the largest decimal unit that leaves at least one digit before the point: `1.28 GB`.
    public static func text(_ bytes: Int) -> String {
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
