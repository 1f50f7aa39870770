package import NibbleCore

/// Every operation case on one backend.
package enum SelfTest {
    /// Runs every case. One that throws is a failure.
    package static func run(_ cases: [OperationCase], on backend: any Backend) -> SelfTestResult {
        var result = SelfTestResult(caseCount: cases.count)
        var worst: [String: WorstCase] = [:]
        for operationCase in cases {
            do {
                let outcome = try operationCase.run(on: backend)
                let operation = operationCase.operation
                if outcome.share >= worst[operation]?.share ?? 0 {
                    worst[operation] = WorstCase(operation: operation, name: "\(operationCase)", share: outcome.share)
                }
                if !outcome.passed { result.failures.append("\(operationCase): \(outcome)") }
            } catch {
                result.failures.append("\(operationCase): \(error)")
            }
        }
        result.worstCases = worst.values.sorted { $0.operation < $1.operation }
        return result
    }
}

package struct SelfTestResult: Sendable {
    package var caseCount: Int
    package var failures: [String] = []
    /// Of each operation the case with the largest share, by operation.
    package var worstCases: [WorstCase] = []
}

/// The case of an operation that comes nearest to the error it is allowed, or exceeds it most.
package struct WorstCase: Sendable, Equatable {
    package let operation: String
    package let name: String
    /// ``OperationResult/share``
    package let share: Double

    package init(operation: String, name: String, share: Double) {
        self.operation = operation
        self.name = name
        self.share = share
    }
}

extension OperationCase {
    /// The first word of the name.
    package var operation: String { String(name.prefix { $0 != " " && $0 != "," }) }
}
