import NibbleConformance
@_spi(Testing) import NibbleCPU
import NibbleCore
import Testing

// Serialized: the instruction set is the whole process's.
@Suite(.serialized)
struct OperationTests {
    /// Every level with threads, and the best one without.
    static let configurations = CPUFeatures.levels.map { ($0, 3) } + CPUFeatures.levels.suffix(1).map { ($0, 1) }

    @Test("every operation agrees with the reference", arguments: configurations)
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
