import Foundation
import NibbleCPU
import NibbleTestSupport
import Testing

@Suite struct OperationTests {
    /// Every level with threads, and the best one without.
    static let configurations = CPUFeatures.levels.map { ($0, 3) } + CPUFeatures.levels.suffix(1).map { ($0, 1) }

    /// Each in a process of its own: the instruction set is the whole process's, and other tests compare to the last bit.
    @Test("every operation agrees with the reference", arguments: configurations)
    func conformance(level: String, threads: Int) throws {
        let doctor = try CommandLineTool.run(
            ["doctor", "--selftest", "--threads", "\(threads)"], environment: ["NIBBLE_CPU": level, "CUDA_VISIBLE_DEVICES": ""])
        #expect(doctor.output.contains("cpu: CPU, \(level),"))
        #expect(doctor.output.contains(/selftest on cpu: ([1-9][0-9]*) of \1 cases pass/))
        #expect(doctor.status == 0, "\(doctor.output.split(separator: "\n").filter { $0.contains("FAILED") }) \(doctor.errors)")
    }
}
