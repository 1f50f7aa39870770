import NibbleGeneration
import NibbleModels
import Testing

@Suite struct PrefixConstraintTests {
    private func run(
        _ rows: [[Float]], beams: Int, _ allowed: @escaping PrefixAllowedTokens
    ) throws -> [[Float]] {
        let width = rows[0].count
        var values = rows.flatMap { $0 }
        let ids: [Int32] = [1, 2]
        let scratch = ScoreScratch(vocabularySize: width)
        try ids.withUnsafeBufferPointer { ids in
            let contexts = rows.indices.map { RowContext(ids: ids, promptLength: 1, row: $0, scratch: scratch) }
            try values.withUnsafeMutableBufferPointer {
                try PrefixConstrainedProcessor(beams: beams, allowed).process(
                    LogitsBatch(rows: rows.count, vocabularySize: width, values: $0), contexts)
            }
        }
        return rows.indices.map { Array(values[($0 * width)..<(($0 + 1) * width)]) }
    }

    @Test("Only allowed tokens keep their scores; items are numbered by beams")
    func keepsAllowed() throws {
        let scores = try run([[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 1, 1]], beams: 2) { item, ids in
            #expect(ids == [1, 2])
            return item == 0 ? [0, 2] : [1]
        }
        let none = -Float.infinity
        #expect(scores == [[1, none, 3], [4, none, 6], [none, 8, none], [none, 1, none]])
    }

    @Test("An item without any finite score gets its allowed tokens back, all alike")
    func deadItem() throws {
        let none = -Float.infinity
        let scores = try run([[none, 2, 3], [none, 5, 6], [none, 1, 1], [3, 1, 1]], beams: 2) { _, _ in [0] }
        #expect(scores == [[0, none, none], [0, none, none], [none, none, none], [3, none, none]])
    }

    @Test("No allowed token is an error that names the item")
    func unsatisfiable() {
        #expect(throws: GenerationError.constraintUnsatisfiable(item: 1)) {
            try run([[1, 2], [3, 4]], beams: 1) { item, _ in item == 0 ? [1] : [] }
        }
    }
}
