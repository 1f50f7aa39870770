import NibbleCPU
import NibbleCore

/// Times recurrent mixers on the CPU: a token for each of some rows, and prompts.
enum RecurrenceBenchmark {
    /// An operation in the sizes of a published model.
    private struct TimedMixer: Sendable {
        let name: String
        /// Bytes of the states that a call reads and writes for each row; 0 where they do not matter.
        let stateBytes: Int
        let call: @Sendable (OperationContext, RaggedBatch) throws -> () throws -> Void
    }

    private static let mixers = [
        TimedMixer(name: "convolution, 10240 × 4", stateBytes: 0) { try convolution($0, $1, channels: 10240, taps: 4) },
        TimedMixer(name: "gated delta rule, 48 × 128 × 128", stateBytes: 2 * 4 * 48 * 128 * 128) {
            try delta($0, $1, DeltaVariant(keyHeads: 16, valueHeads: 48, keySize: 128, valueSize: 128))
        },
        TimedMixer(name: "Mamba 2, 128 × 64 × 128", stateBytes: 2 * 4 * 128 * 64 * 128) {
            try scan($0, $1, ScanVariant(heads: 128, headSize: 64, groups: 8, stateSize: 128))
        },
    ]

    /// Prints a table of operations by rows of one token, and a row of many.
    static func run(_ backend: CPUBackend) throws {
        let context = OperationContext(backend: backend, activation: .float32)
        print("| mixer | 1 row | 16 rows | prompt of 256 |")
        print("| --- | --- | --- | --- |")
        for mixer in mixers {
            let cells = try [(1, 1), (16, 1), (1, 256)].map { rows, tokens in
                let batch = RaggedBatch(
                    queryLengths: Array(repeating: tokens, count: rows), lengths: Array(repeating: tokens + 32, count: rows))
                let call = try mixer.call(context, batch)
                let seconds = try LinearBenchmark.fastest { _ in try call() }
                let rate = tokens == 1 && mixer.stateBytes > 0 ? Double(rows * mixer.stateBytes) / seconds / 1e9 : nil
                return "\(Int(seconds * 1e6)) µs" + (rate.map { ", \(Int($0)) GB/s of states" } ?? "")
            }
            print("| \(mixer.name) | \(cells.joined(separator: " | ")) |")
        }
    }

    private static func convolution(
        _ context: OperationContext, _ batch: RaggedBatch, channels: Int, taps: Int
    ) throws -> () throws -> Void {
        let state = try context.random(.float32, [batch.blockCount, channels, taps - 1], seed: 1)
        let call = ConvolutionCall(
            input: Columns(try context.random(.float32, [batch.tokenCount, channels], seed: 2).tensor),
            weight: try context.random(.float32, [channels, taps], seed: 3).tensor, activation: .silu,
            state: RecurrentState(inputs: state.tensor))
        let (indices, output) = (try batch.indices(context), try context.output(.float32, [batch.tokenCount, channels]))
        return { try context.backend.convolve(call, indices, into: output) }
    }

    private static func delta(
        _ context: OperationContext, _ batch: RaggedBatch, _ sizes: DeltaVariant
    ) throws -> () throws -> Void {
        let heads = sizes.valueHeads
        let matrix = try context.random(.float32, [batch.blockCount, heads, sizes.keySize, sizes.valueSize], seed: 1)
        let scalars = try context.random(.float32, [batch.tokenCount, 2 * heads], seed: 2).tensor
        let call = GatedDeltaCall(
            mixed: try context.random(.float32, [batch.tokenCount, sizes.mixedWidth], seed: 3).tensor, a: Columns(scalars),
            b: Columns(scalars, first: heads), rate: try context.random(.float32, [heads], seed: 4).tensor,
            timeBias: try context.random(.float32, [heads], seed: 5).tensor, keyHeads: sizes.keyHeads, valueHeads: heads,
            keySize: sizes.keySize, valueSize: sizes.valueSize,
            state: RecurrentState(inputs: matrix.tensor, matrix: matrix.tensor))
        let output = try context.output(.float32, [batch.tokenCount, heads * sizes.valueSize])
        let indices = try batch.indices(context)
        return { try context.backend.gatedDelta(call, indices, into: output) }
    }

    private static func scan(
        _ context: OperationContext, _ batch: RaggedBatch, _ sizes: ScanVariant
    ) throws -> () throws -> Void {
        let heads = sizes.heads
        let matrix = try context.random(.float32, [batch.blockCount, heads, sizes.headSize, sizes.stateSize], seed: 1)
        let vector = try context.random(.float32, [heads], seed: 2).tensor
        let call = StateSpaceCall(
            mixed: try context.random(.float32, [batch.tokenCount, sizes.mixedWidth], seed: 3).tensor,
            dt: Columns(try context.random(.float32, [batch.tokenCount, heads], seed: 4).tensor), rate: vector,
            timeBias: vector, skip: vector, heads: heads, headSize: sizes.headSize, groups: sizes.groups,
            stateSize: sizes.stateSize, state: RecurrentState(inputs: matrix.tensor, matrix: matrix.tensor))
        let output = try context.output(.float32, [batch.tokenCount, heads * sizes.headSize])
        let indices = try batch.indices(context)
        return { try context.backend.stateSpace(call, indices, into: output) }
    }
}
