extension Sequence where Element: Sendable, Self: Sendable {
    /// The results of `body` for each element, in order; at most `limit` calls run at the same time. The first error cancels
    /// the others.
    func concurrentMap<Result: Sendable>(
        limit: Int, _ body: @escaping @Sendable (Element) async throws -> Result
    ) async throws -> [Result] {
        try await withThrowingTaskGroup(of: (Int, Result).self) { group in
            var results: [Int: Result] = [:]
            var running = 0
            for (index, element) in enumerated() {
                if running >= Swift.max(limit, 1), let (index, result) = try await group.next() {
                    results[index] = result
                    running -= 1
                }
                group.addTask { (index, try await body(element)) }
                running += 1
            }
            for try await (index, result) in group { results[index] = result }
            return results.sorted { $0.key < $1.key }.map(\.value)
        }
    }
}
