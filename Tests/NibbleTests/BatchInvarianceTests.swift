import Foundation
import Nibble
import NibbleCPU
import NibbleCore
import NibbleModels
import NibbleTestSupport
import Testing

/// In batch-invariant mode a row's logits are the same bits however its tokens are fed and whatever runs beside it.
@Suite(.computing) struct BatchInvarianceTests {
    enum Weights: String, Sendable, CaseIterable {
        case float32, bfloat16, nf4, nested, int8, int8Activations

        func configure(_ configuration: inout LoadConfiguration) {
            configuration.dtype = self == .bfloat16 ? .bfloat16 : .float32
            switch self {
            case .float32, .bfloat16: break
            case .nf4, .int8Activations:
                configuration.quantization = BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4)
                configuration.int8Activations = self == .int8Activations
            case .nested:
                configuration.quantization = BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4, useDoubleQuant: true)
            case .int8: configuration.quantization = BitsAndBytesConfig(loadIn8Bit: true)
            }
        }
    }

    private func load(_ name: String, _ weights: Weights, threads: Int, isBatchInvariant: Bool = true) throws
        -> any GenerativeModel
    {
        var configuration = LoadConfiguration()
        weights.configure(&configuration)
        configuration.backends = [CPUBackend(threads: threads, isBatchInvariant: isBatchInvariant)]
        return try PretrainedModel.load(folder: PlacementRunTests.folder(name), configuration).model
    }

    private static let text = (0..<60).map { Int32($0 * 7 % 23 + 3) }

    /// Logits after the text, whose tokens are fed in pieces of `step` beside `neighbours` rows of other lengths.
    private func logits(_ model: any GenerativeModel, step: Int, neighbours: Int) throws -> [UInt32] {
        let session = try model.makeSession(SessionRequest(rows: neighbours + 1, capacity: 80))
        var last: [UInt32] = []
        for start in stride(from: 0, to: Self.text.count, by: step) {
            let piece = Array(Self.text[start..<min(start + step, Self.text.count)])
            let others = (0..<neighbours).map { RowTokens(row: $0, tokens: Array(Self.text[0..<min($0 % 5 + 1, step)])) }
            try session.feed(others + [RowTokens(row: neighbours, tokens: piece)], logits: .last) { batch in
                last = batch[batch.rows - 1].map(\.bitPattern)
            }
        }
        return last
    }

    @Test(
        "rows have the same bits in every company", arguments: ["bloom", "llama", "qwen2_window", "qwen3_moe"], Weights.allCases)
    func sameBits(name: String, weights: Weights) throws {
        let wanted = try logits(try load(name, weights, threads: 1), step: 1, neighbours: 0)
        let model = try load(name, weights, threads: 2)
        for (step, neighbours) in [(1, 0), (1, 1), (1, 7), (4, 0), (20, 2), (60, 0), (6, 15)] {
            #expect(try logits(model, step: step, neighbours: neighbours) == wanted, "\(step) at a time beside \(neighbours)")
        }
    }
}
