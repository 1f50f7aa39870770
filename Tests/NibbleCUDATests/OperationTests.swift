import NibbleCUDA
import NibbleConformance
import NibbleCore
import Testing

/// The first GPU, or why there is none.
private let card = Result { try CUDABackend.devices()[0] }

private var hasCard: Bool { (try? card.get()) != nil }

@Suite(.serialized, .enabled(if: hasCard, "there is no GPU"))
struct OperationTests {
    @Test("every operation case agrees with the reference", arguments: OperationCases.all)
    func agrees(operationCase: OperationCase) throws {
        let result = try operationCase.run(on: CUDABackend(card.get(), budget: 1 << 30))
        #expect(result.passed, "\(operationCase): \(result)")
    }
}
