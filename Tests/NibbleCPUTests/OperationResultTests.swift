import NibbleCPU
import NibbleConformance
import NibbleCore
import Testing

@Suite struct OperationResultTests {
    static let exactFailure = OperationResult(worstError: 0.01, tolerance: 0, detail: "exact")
    static let success = OperationResult(worstError: 0.9, tolerance: 1)
    static let failure = OperationResult(worstError: 3, tolerance: 1, detail: "far")

    @Test("any error counts as infinite where none is allowed")
    func share() {
        #expect(Self.exactFailure.share == .infinity && !Self.exactFailure.passed)
        #expect(OperationResult(worstError: 0, tolerance: 0).share == 0)
        #expect(Self.success.share == 0.9 && Self.success.passed)
        #expect(OperationResult(worstError: .nan, tolerance: 1).share == .infinity)
        #expect(!OperationResult(got: [.nan], wanted: [1], tolerance: 1).passed)
    }

    @Test(
        "a failure is never replaced by a success, in either order",
        arguments: [(exactFailure, success, "exact"), (failure, success, "far"), (exactFailure, failure, "exact")])
    func combined(_ a: OperationResult, _ b: OperationResult, detail: String) {
        for result in [a.and(b), b.and(a)] {
            #expect(!result.passed)
            #expect(result.detail == detail)
        }
    }

    @Test("the self-test names the case with the largest share of each operation, and counts what throws")
    func selfTest() {
        struct Broken: Error {}
        let cases = [
            OperationCase("add small") { _ in OperationResult(worstError: 0.5, tolerance: 1) },
            OperationCase("add large") { _ in OperationResult(worstError: 2, tolerance: 8) },
            OperationCase("gate wrong") { _ in Self.exactFailure },
            OperationCase("gate right") { _ in Self.success },
            OperationCase("norm") { _ in throw Broken() },
        ]
        let result = SelfTest.run(cases, on: CPUBackend(threads: 1))
        #expect(
            result.worstCases == [
                WorstCase(operation: "add", name: "add small", share: 0.5),
                WorstCase(operation: "gate", name: "gate wrong", share: .infinity),
            ])
        #expect(result.caseCount == 5 && result.failures.count == 2)
    }
}
