import NibbleCUDA
import NibbleConformance
import NibbleCore
import Testing

@Suite(.serialized, .enabled(if: Card.isThere, "there is no GPU"))
struct GraphTests {
    /// A model of one linear layer: from the last token's embedding to the next token.
    private struct Step {
        let backend: CUDABackend
        let batch: BatchIndices
        let tokens: Tensor
        private let table: Tensor
        private let head: LinearGroup
        private let hidden: Tensor
        private let logits: Tensor
        private let state: SelectionState
        private let slots: Tensor
        private let counters: Tensor

        init(_ backend: CUDABackend, rows: Int, format: WeightFormat) throws {
            self.backend = backend
            let (vocabulary, width) = (500, 128)
            let values = HostValues.tensor(HostValues.random(vocabulary * width, seed: 6), .bfloat16, [vocabulary, width])
            table = try backend.upload(values)
            let weight = try backend.prepare(try backend.quantize(values, to: format))
            head = LinearGroup([Linear(name: "head", weight: weight)])
            hidden = try backend.allocate(.bfloat16, [rows, width])
            logits = try backend.allocate(.float32, [rows, vocabulary])
            func integers(_ values: [Int32], _ shape: Shape? = nil) throws -> Tensor {
                try backend.upload(.host(values, .int32, shape ?? [values.count]))
            }
            let all = (0..<rows).map { Int32($0) }
            batch = BatchIndices(
                tokens: try integers(all), positions: try integers(all.map { _ in 0 }), rows: try integers(all),
                queryOffsets: try integers(all + [Int32(rows)]), lengths: try integers(all.map { _ in 1 }),
                blockTable: try integers(all, [rows, 1]), tokenCount: rows, rowCount: rows, maximumQueryLength: 1,
                maximumLength: 32)
            counters = try integers(all.map { _ in 0 })
            tokens = try integers(all.map { _ in -1 })
            slots = try integers(all)
            state = try SelectionState(slots: rows, vocabulary: vocabulary, backend: backend)
            var selection = SlotSelection()
            selection.temperature = 1
            selection.topP = 0.9
            selection.seed = 11
            for row in 0..<rows {
                selection.stream = UInt64(row)
                try state.write(selection, slot: row, prompt: [], generated: [])
            }
        }

        func run() throws {
            try backend.embed(EmbeddingCall(table: table), batch, into: hidden)
            try backend.linear(hidden, head, epilogue: .init(), into: logits)
            try backend.select(logits, state, slots: slots, counters: counters, into: tokens)
            try backend.copy(tokens, to: batch.tokens)
        }
    }

    @Test("a captured step, launched again and again, gives what the steps give one by one", arguments: [1, 3, 20])
    func replay(rows: Int) throws {
        let backend = try Card.backend()
        for format in [WeightFormat.fourBit(FourBitFormat(codebook: .nf4)), .int8, .dense(.bfloat16)] {
            let plain = try Step(backend, rows: rows, format: format)
            let captured = try Step(backend, rows: rows, format: format)
            try Step(backend, rows: rows, format: format).run()
            let graph = try #require(try backend.capture { try captured.run() })
            for _ in 0..<20 {
                try plain.run()
                try graph.launch()
                let wanted = try backend.elements(plain.tokens, Int32.self)
                #expect(try backend.elements(captured.tokens, Int32.self) == wanted)
            }
        }
    }

    @Test("a graph keeps the workspace it was recorded with, even when later calls need a larger one")
    func keepsWorkspace() throws {
        let backend = try Card.backend()
        let plain = try Step(backend, rows: 2, format: .int8)
        let captured = try Step(backend, rows: 2, format: .int8)
        try Step(backend, rows: 2, format: .int8).run()
        let graph = try #require(try backend.capture { try captured.run() })
        let source = HostValues.tensor(HostValues.random(512 * 512, seed: 7), .bfloat16, [512, 512])
        let weight = try backend.quantize(source, to: .fourBit(FourBitFormat(codebook: .nf4)))
        let (input, output) = (try backend.allocate(.bfloat16, [600, 512]), try backend.allocate(.bfloat16, [600, 512]))
        for _ in 0..<5 {
            try backend.linear(input, LinearGroup([Linear(name: "large", weight: weight)]), epilogue: .init(), into: output)
            try plain.run()
            try graph.launch()
            let wanted = try backend.elements(plain.tokens, Int32.self)
            #expect(try backend.elements(captured.tokens, Int32.self) == wanted)
        }
    }

    @Test("what cannot be recorded throws, and the backend goes on working")
    func refusals() throws {
        let backend = try Card.backend()
        let tensor = try backend.upload(.host([Int32(5)], .int32, [1]))
        #expect(throws: BackendError.self) {
            try backend.capture { try backend.copy(.host([Int32(6)], .int32, [1]), to: tensor) }
        }
        #expect(throws: BackendError.self) { try backend.capture { _ = try backend.bytes(tensor) } }
        #expect(throws: BackendError.self) { try backend.capture { _ = try backend.capture {} } }
        #expect(try backend.elements(tensor, Int32.self) == [5])
    }
}
