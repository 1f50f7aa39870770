import NibbleCPU
import NibbleConformance
import NibbleCore
import NibbleTestSupport
import Testing

@Suite(.serialized, .computing) struct LowRankTests {
    /// Levels share the cases among them: the plain form is slow. ``OperationTests`` runs all cases on every level.
    @Test("low-rank sums agree with their plain form", arguments: InstructionLevel.available.indices)
    func conformance(index: Int) {
        let levels = InstructionLevel.available
        let cases = OperationCases.lowRank.filter { $0.loadDType == .float32 }.enumerated()
            .filter { ($0.offset / 3) % levels.count == index }.map(\.element)
        let result = SelfTest.run(cases, on: CPUBackend(threads: 3, level: levels[index]))
        #expect(result.failures == [])
        #expect(result.caseCount > 20)
    }
}
