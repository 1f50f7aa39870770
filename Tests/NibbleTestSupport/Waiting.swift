/// A state that a test waited for in vain.
public struct NeverReached: Error {}

/// Waits until `isReached`.
///
/// - Throws: ``NeverReached`` after five minutes.
public func wait(until isReached: () async throws -> Bool) async throws {
    let deadline = ContinuousClock.now + .seconds(300)
    while !(try await isReached()) {
        guard ContinuousClock.now < deadline else { throw NeverReached() }
        try await Task.sleep(for: .milliseconds(1))
    }
}
