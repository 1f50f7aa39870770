import NibbleCPU
import NibbleConformance
import NibbleCore
import NibbleTestSupport
import Testing

/// Routing and attention sinks on their own; ``OperationTests`` runs them among all operations.
@Suite(.serialized, .computing) struct RouteTests {
    @Test("every way to route agrees with its plain form", arguments: [1, 3])
    func routes(threads: Int) {
        let result = SelfTest.run(OperationCases.routes, on: CPUBackend(threads: threads))
        #expect(result.failures == [])
        #expect(result.caseCount > 25)
    }

    @Test("sinks agree with the plain form", arguments: InstructionLevel.available)
    func sinks(level: InstructionLevel) {
        let cases = OperationCases.attention.filter { $0.name.contains("sinks") }
        let result = SelfTest.run(cases, on: CPUBackend(threads: 3, level: level))
        #expect(result.failures == [])
        #expect(result.caseCount > 100)
    }

    @Test("a token's experts do not depend on the tokens beside it")
    func independence() throws {
        let (tokens, experts, topK) = (70, 64, 6)
        let backend = CPUBackend(threads: 3)
        let logits = Tensor.host(HostValues.random(tokens * experts, seed: 7, scale: 2), .float32, [tokens, experts])
        let bias = Tensor.host(HostValues.random(experts, seed: 8, scale: 0.1), .float32, [experts])
        let rule = RouterRule(
            scoring: .sigmoid, choiceBias: bias, groups: .init(count: 8, chosen: 3, score: .sumOfBestTwo), normalizes: true,
            floor: .added(1e-20), scale: 2.5)
        func route(_ rows: Range<Int>) throws -> (ids: [Int32], weights: [Float]) {
            let ids = Tensor.host([Int32](repeating: -1, count: rows.count * topK), .int32, [rows.count, topK])
            let weights = Tensor.host([Float](repeating: .nan, count: rows.count * topK), .float32, [rows.count, topK])
            try backend.route(RouteCall(logits: logits.rows(rows), rule: rule, topK: topK), ids: ids, weights: weights)
            return withExtendedLifetime((ids, weights)) {
                (Array(ids.hostElements(Int32.self)), Array(weights.hostElements(Float.self)))
            }
        }
        let all = try route(0..<tokens)
        for token in 0..<tokens {
            let alone = try route(token..<token + 1)
            #expect(alone.ids == Array(all.ids[token * topK..<(token + 1) * topK]))
            #expect(alone.weights == Array(all.weights[token * topK..<(token + 1) * topK]))
            #expect(Set(alone.ids).count == topK)
        }
    }
}
