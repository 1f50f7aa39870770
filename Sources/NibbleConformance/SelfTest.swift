package import NibbleCore

/// Every operation case on one backend.
package enum SelfTest {
    /// - Throws: only what keeps a backend from being used at all; a case that throws is a failure.
    package static func run(on backend: any Backend) throws -> SelfTestResult {
        var result = SelfTestResult(caseCount: OperationCases.all.count)
        var worst: [String: Double] = [:]
        for operationCase in OperationCases.all {
            do {
                let outcome = try operationCase.run(on: backend)
                let operation = String(operationCase.name.prefix { $0 != " " })
                worst[operation] = max(worst[operation] ?? 0, outcome.worstError)
                if !outcome.passed { result.failures.append("\(operationCase): \(outcome)") }
            } catch {
                result.failures.append("\(operationCase): \(error)")
            }
        }
        result.worstErrors = worst.sorted { $0.key < $1.key }.map { (operation: $0.key, error: $0.value) }
        return result
    }
}

package struct SelfTestResult: Sendable {
    package var caseCount: Int
    package var failures: [String] = []
    /// The largest relative error of each operation.
    package var worstErrors: [(operation: String, error: Double)] = []
}
