import NibbleCPU
import NibbleConformance
import NibbleCore
import NibbleTestSupport
import Testing

/// One after another: each uses several threads.
@Suite(.serialized, .computing) struct OperationTests {
    /// Every level with threads, and the best one without.
    static let configurations = InstructionLevel.available.map { ($0, 3) } + [(InstructionLevel.best, 1)]

    @Test("every operation agrees with its plain form", arguments: configurations)
    func conformance(level: InstructionLevel, threads: Int) {
        let result = SelfTest.run(OperationCases.all, on: CPUBackend(threads: threads, level: level))
        #expect(result.failures == [])
        #expect(result.caseCount > 1000 && result.worstCases.count > 10)
        #expect(result.worstCases.allSatisfy { $0.share <= 1 })
    }
}

@Suite(.computing) struct InstructionLevelTests {
    @Test("the levels of this machine begin with the plain one and hold the best one")
    func available() {
        #expect(InstructionLevel.available.first?.name == "generic")
        #expect(InstructionLevel.available.contains(.best))
        #expect(Set(InstructionLevel.available.map(\.name)).count == InstructionLevel.available.count)
    }

    @Test("a backend names the level it was made for", arguments: InstructionLevel.available)
    func summary(level: InstructionLevel) {
        #expect(CPUBackend(threads: 1, level: level).summary == "CPU, \(level.name), 1 thread")
    }

    @Test("NIBBLE_CPU chooses the level; a name that cannot be honoured is reported", arguments: ["generic", "pdp11"])
    func environment(name: String) throws {
        let doctor = try CommandLineTool.run(
            ["doctor", "--threads", "1"], environment: ["NIBBLE_CPU": name, "CUDA_VISIBLE_DEVICES": ""])
        let level =
            name == "generic"
            ? "generic" : "\(InstructionLevel.best) (NIBBLE_CPU=pdp11 is unknown or more than this CPU has)"
        #expect(doctor.output.contains("cpu: CPU, \(level), 1 thread"))
    }

    /// Levels round differently, so that a result tells which level's kernels ran.
    @Test("backends of all levels run at the same time, and each gives the bytes it gives alone")
    func sideBySide() async throws {
        let levels = InstructionLevel.available
        let alone = try levels.map { try LevelFingerprint.bytes(CPUBackend(threads: 2, level: $0)) }
        try #require(levels.count > 1, "this machine runs the plain level only")
        #expect(alone[0] != alone[levels.count - 1], "the fingerprint does not tell levels apart")
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (level, wanted) in zip(levels, alone) {
                group.addTask {
                    let backend = CPUBackend(threads: 2, level: level)
                    for _ in 0..<20 {
                        let bytes = try LevelFingerprint.bytes(backend)
                        #expect(bytes == wanted, "\(level)")
                    }
                }
            }
            try await group.waitForAll()
        }
    }
}

/// Results of kernels from every folder: elementwise, attention, linear and quantize.
enum LevelFingerprint {
    static func bytes(_ backend: CPUBackend) throws -> [[UInt8]] {
        let context = OperationContext(backend: backend, activation: .float32)
        let (tokens, width) = (9, 128)
        let source = try context.random(.float32, [width, width], seed: 1)
        let input = try context.random(.float32, [tokens, width], seed: 2)
        var results: [[UInt8]] = []
        for format in [WeightFormat.fourBit(FourBitFormat(codebook: .nf4)), .int8, .dense(.float16)] {
            let weight = try backend.prepare(try backend.quantize(source.tensor, to: format))
            for rows in [1, tokens] {
                let output = try context.output(.float32, [rows, width])
                let group = LinearGroup([Linear(name: "layer", weight: weight)])
                try backend.linear(
                    input.tensor.rows(0..<rows), group, epilogue: LinearEpilogue(activation: .gelu), into: output)
                results.append(try context.bytes(of: output))
            }
        }
        let gated = try context.output(.float32, [tokens, width / 2])
        try backend.gate(input.tensor, .silu, into: gated)
        results.append(try context.bytes(of: gated))
        results.append(try attention(context))
        let normalized = try context.output(.float32, [tokens, width])
        try backend.normalize(input.tensor, Norm(kind: .layer, epsilon: 1e-5, weight: nil), residual: nil, into: normalized)
        results.append(try context.bytes(of: normalized))
        return results
    }

    /// One query over 41 keys.
    private static func attention(_ context: OperationContext) throws -> [UInt8] {
        let geometry = KeyValueGeometry(heads: 2, keySize: 64, valueSize: 64, format: .dense(.float32))
        let shape = geometry.shape(blocks: 2, size: 64)
        let cache = KeyValueCache(
            geometry: geometry, keys: try context.random(.float32, shape, seed: 3).tensor,
            values: try context.random(.float32, shape, seed: 4).tensor)
        let batch = BatchIndices(
            tokens: try context.integers([0]), positions: try context.integers([40]), rows: try context.integers([0]),
            queryOffsets: try context.integers([0, 1]), lengths: try context.integers([41]),
            blockTable: try context.integers([0, 1], [1, 2]), tokenCount: 1, rowCount: 1, maximumQueryLength: 1,
            maximumLength: 41)
        let call = AttentionCall(
            queries: try context.random(.float32, [1, 128], seed: 5).tensor, layout: .init(offset: 0, stride: 64), heads: 2,
            cache: cache, scale: 0.125, softCap: nil, window: nil, isCausal: true, bias: .none)
        let output = try context.output(.float32, [1, 128])
        try context.backend.attend(call, batch, into: output)
        return try context.bytes(of: output)
    }
}
