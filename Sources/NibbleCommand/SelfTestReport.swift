import NibbleCore

#if SelfTest
import ArgumentParser
import Foundation
import NibbleConformance
#endif

/// What `doctor --selftest` says of one device.
struct SelfTestReport {
    let passes: Bool
    let lines: [String]
    let json: JSONValue
}

#if SelfTest
extension SelfTestReport {
    /// The cases whose names begin with one of `beginnings`, or all without any.
    static func cases(_ beginnings: [String]) throws -> [OperationCase] {
        guard !beginnings.isEmpty else { return OperationCases.all }
        for beginning in beginnings where !OperationCases.all.contains(where: { $0.name.hasPrefix(beginning) }) {
            throw ValidationError(
                "no case of the self-test has a name that begins with '\(beginning)'; operations are "
                    + Set(OperationCases.all.map(\.operation)).sorted().joined(separator: ", "))
        }
        return OperationCases.all.filter { operation in beginnings.contains { operation.name.hasPrefix($0) } }
    }

    /// Runs the cases.
    init(_ cases: [OperationCase], on backend: any Backend) {
        let result = SelfTest.run(cases, on: backend)
        passes = result.failures.isEmpty
        let passed = result.caseCount - result.failures.count
        lines =
            ["selftest on \(backend.device): \(passed) of \(result.caseCount) cases pass"]
            + result.worstCases.map { worst in
                let operation = worst.operation.padding(toLength: 12, withPad: " ", startingAt: 0)
                return "  \(operation)  \(SelfTestReport.text(worst.share)), \(worst.name)"
            }
            + result.failures.map { "  FAILED \($0)" }
        json = .object(
            JSONObject([
                ("device", .string(backend.device.description)), ("cases", .int(result.caseCount)),
                ("failures", .array(result.failures.map(JSONValue.string))),
                ("worst_cases", .object(JSONObject(result.worstCases.map { ($0.operation, SelfTestReport.value($0)) }))),
            ]))
    }

    /// The largest error as a share of the allowed one.
    private static func text(_ share: Double) -> String {
        if share == 0 { return "exact" }
        return share.isFinite ? String(format: "%.1f %% of the allowed error", 100 * share) : "not exact, as it must be"
    }

    /// `share_of_allowed` is null where no error is allowed and there is one.
    private static func value(_ worst: WorstCase) -> JSONValue {
        let share: JSONValue = worst.share.isFinite ? .double(worst.share) : .null
        return .object(JSONObject([("share_of_allowed", share), ("case", .string(worst.name))]))
    }
}
#endif
