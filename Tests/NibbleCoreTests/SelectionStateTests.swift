import NibbleCore
import NibbleTestSupport
import Testing

@Suite struct SelectionStateTests {
    private static let vocabulary = 70

    fileprivate static func selection(_ change: (inout SlotSelection) -> Void) -> SlotSelection {
        var selection = SlotSelection()
        change(&selection)
        return selection
    }

    private static let invalid: [(field: String, found: String, selection: SlotSelection)] = [
        ("temperature", "nan", selection { $0.temperature = .nan }),
        ("temperature", "inf", selection { $0.temperature = .infinity }),
        ("temperature", "-0.5", selection { $0.temperature = -0.5 }),
        ("topK", "-1", selection { $0.topK = -1 }),
        ("topP", "0.0", selection { $0.topP = 0 }),
        ("topP", "1.5", selection { $0.topP = 1.5 }),
        ("topP", "nan", selection { $0.topP = .nan }),
        ("minP", "-0.1", selection { $0.minP = -0.1 }),
        ("minP", "2.0", selection { $0.minP = 2 }),
        ("repetitionPenalty", "0.0", selection { $0.repetitionPenalty = 0 }),
        ("repetitionPenalty", "inf", selection { $0.repetitionPenalty = .infinity }),
        ("presencePenalty", "nan", selection { $0.presencePenalty = .nan }),
        ("frequencyPenalty", "-inf", selection { $0.frequencyPenalty = -.infinity }),
        ("minimumTokens", "-3", selection { $0.minimumTokens = -3 }),
        ("bias", "70", selection { $0.bias = [TokenBias(token: 70, value: 1)] }),
        ("bias", "-1", selection { $0.bias = [TokenBias(token: -1, value: 1)] }),
        ("bias", "nan", selection { $0.bias = [TokenBias(token: 1, value: .nan)] }),
        ("bias", "inf", selection { $0.bias = [TokenBias(token: 1, value: .infinity)] }),
        ("bias", "3e+38", selection { $0.bias = [TokenBias(token: 1, value: 3e38), TokenBias(token: 1, value: 3e38)] }),
    ]

    @Test("a selection that cannot be is an error that names the field and the value", arguments: invalid)
    func faults(field: String, found: String, selection: SlotSelection) throws {
        let backend = StandInBackend()
        let state = try SelectionState(slots: 2, vocabulary: Self.vocabulary, backend: backend)
        let before = try contents(state, backend)
        let error = #expect(throws: SelectionError.self) {
            try state.write(selection, slot: 1, prompt: [1], generated: [2])
        }
        #expect(error?.field == field && error?.found == found)
        #expect("\(error.map { "\($0)" } ?? "")".hasPrefix("\(field): expected "))
        #expect(try contents(state, backend) == before)
    }

    @Test("tokens outside of the vocabulary, slots and masks of the wrong size are errors, and nothing is written")
    func bounds() throws {
        let backend = StandInBackend()
        let state = try SelectionState(slots: 2, vocabulary: Self.vocabulary, backend: backend)
        let penalties = Self.selection { $0.presencePenalty = 1 }
        try state.write(penalties, slot: 1, prompt: [3], generated: [4])
        let before = try contents(state, backend)
        func field(_ body: () throws -> Void) -> String? { #expect(throws: SelectionError.self, performing: body)?.field }
        for token: Int32 in [-1, 70, .max] {
            #expect(field { try state.write(penalties, slot: 1, prompt: [0, token], generated: []) } == "prompt")
            #expect(field { try state.write(penalties, slot: 1, prompt: [], generated: [0, token]) } == "generated")
        }
        for slot in [-1, 2] {
            #expect(field { try state.write(SlotSelection(), slot: slot, prompt: [], generated: []) } == "slot")
            #expect(field { try [0, 0, 0].withUnsafeBufferPointer { try state.writeMask($0, slot: slot) } } == "slot")
        }
        for count in [0, 2, 4] {
            let words = [Int32](repeating: -1, count: count)
            #expect(field { try words.withUnsafeBufferPointer { try state.writeMask($0, slot: 0) } } == "mask")
        }
        #expect(try contents(state, backend) == before)
    }

    @Test("the bias takes as many tokens as there is room for, end tokens included")
    func biasLimit() throws {
        let backend = StandInBackend()
        let state = try SelectionState(slots: 1, vocabulary: 2000, backend: backend)
        let limit = SelectionState.biasLimit
        var selection = Self.selection { $0.bias = (0..<limit).map { TokenBias(token: Int32($0), value: 1) } }
        selection.bias += selection.bias
        try state.write(selection, slot: 0, prompt: [], generated: [])
        #expect(try contents(state, backend)[2].suffix(1) == [Float(2).bitPattern])
        selection.endTokens = [7]
        try state.write(selection, slot: 0, prompt: [], generated: [])
        selection.minimumTokens = 1
        let error = #expect(throws: SelectionError.self) { try state.write(selection, slot: 0, prompt: [], generated: []) }
        #expect(error?.field == "bias" && error?.found == "\(limit + 1)")
    }

    @Test("a write changes its own slot only, and keeps every address")
    func otherSlots() throws {
        let backend = StandInBackend()
        let state = try SelectionState(slots: 3, vocabulary: Self.vocabulary, backend: backend)
        let full = Self.selection {
            $0.temperature = 0.5
            $0.frequencyPenalty = 1
            $0.bias = [TokenBias(token: 9, value: 2)]
            $0.minimumTokens = 2
            $0.endTokens = [1, 500]
            $0.usesMask = true
        }
        for slot in 0..<3 {
            try state.write(full, slot: slot, prompt: [Int32(slot)], generated: [5, 5])
            try [1, 2, Int32(slot)].withUnsafeBufferPointer { try state.writeMask($0, slot: slot) }
        }
        let addresses = [state.buffers.records.address, state.buffers.counts.address, state.buffers.masks.address]
        let allocations = backend.allocations
        let before = try contents(state, backend)
        try state.write(Self.selection { $0.presencePenalty = 2 }, slot: 1, prompt: [8, 8], generated: [8, 9])
        try [7, 7, 7].withUnsafeBufferPointer { try state.writeMask($0, slot: 1) }
        let after = try contents(state, backend)
        for (old, new) in zip(before, after) {
            let width = old.count / 3
            #expect(old[..<width] == new[..<width] && old[(2 * width)...] == new[(2 * width)...])
        }
        let counts = after[3][Self.vocabulary..<2 * Self.vocabulary]
        #expect(counts.reduce(0, +) == 3 + 2 && counts[Self.vocabulary + 8] == 3 && counts[Self.vocabulary + 9] == 2)
        #expect(after[4][3..<6] == [7, 7, 7])
        #expect(backend.allocations == allocations)
        #expect(
            addresses == [state.buffers.records.address, state.buffers.counts.address, state.buffers.masks.address])
    }

    @Test("a slot written with a mask allows nothing until its mask is written")
    func maskIsReset() throws {
        let backend = StandInBackend()
        let state = try SelectionState(slots: 1, vocabulary: Self.vocabulary, backend: backend)
        try [1, 2, 3].withUnsafeBufferPointer { try state.writeMask($0, slot: 0) }
        try state.write(Self.selection { $0.usesMask = true }, slot: 0, prompt: [], generated: [])
        #expect(try contents(state, backend)[4] == [0, 0, 0])
    }

    @Test("the bytes that are announced are the bytes that are held", arguments: [(1, 1), (3, 32), (16, 49153)])
    func byteCount(slots: Int, vocabulary: Int) throws {
        let backend = StandInBackend()
        let before = backend.memoryUse.held
        let state = try SelectionState(slots: slots, vocabulary: vocabulary, backend: backend)
        let tensors = [
            state.buffers.records, state.buffers.biasTokens, state.buffers.biasValues, state.buffers.counts,
            state.buffers.masks, state.buffers.latest,
        ]
        #expect(tensors.reduce(0) { $0 + $1.byteCount } == SelectionState.buffers(slots: slots, vocabulary: vocabulary).byteCount)
        #expect(backend.memoryUse.held - before == SelectionState.buffers(slots: slots, vocabulary: vocabulary).byteCount)
    }

    /// The words of every buffer.
    private func contents(_ state: SelectionState, _ backend: StandInBackend) throws -> [[UInt32]] {
        try [
            state.buffers.records, state.buffers.biasTokens, state.buffers.biasValues, state.buffers.counts,
            state.buffers.masks, state.buffers.latest,
        ].map { tensor in
            var words = [UInt32](repeating: 0, count: tensor.count)
            try words.withUnsafeMutableBytes { try backend.read(tensor, into: $0) }
            return words
        }
    }
}
