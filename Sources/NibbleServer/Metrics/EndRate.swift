/// How fast answers end, by the last of them.
struct EndRate: Sendable {
    private var ends: [ContinuousClock.Instant] = []

    private static let count = 64

    mutating func ended(at now: ContinuousClock.Instant) {
        if ends.count == Self.count { ends.removeFirst() }
        ends.append(now)
    }

    /// Seconds in which `count` answers will have ended at this rate, from 1 to 60: clients refuse longer waits.
    func secondsToEnd(_ count: Int, at now: ContinuousClock.Instant) -> Int {
        // A lull counts: the rate falls while nothing ends.
        guard ends.count > 1, let first = ends.first, first < now else { return 1 }
        let perAnswer = (now - first) / .seconds(1) / Double(ends.count)
        return Int(min(max((Double(max(count, 1)) * perAnswer).rounded(.up), 1), 60))
    }
}
