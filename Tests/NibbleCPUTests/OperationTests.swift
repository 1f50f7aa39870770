import NibbleConformance
@_spi(Testing) import NibbleCPU
import NibbleCore
import Testing

// Serialized: the instruction set is the whole process's.
@Suite(.serialized)
struct OperationTests {
    @Test("every operation agrees with the reference", arguments: CPUFeatures.levels, [1, 3])
    func conformance(level: String, threads: Int) throws {
        let before = CPUFeatures.level
        try #require(CPUFeatures.select(level))
        defer { _ = CPUFeatures.select(before) }
        let backend = CPUBackend(threads: threads)
        for operation in OperationCases.distinct(on: backend) {
            let result = try operation.run(on: backend)
            #expect(result.passed, "\(operation) at \(level) with \(threads) threads: \(result)")
        }
    }
}
