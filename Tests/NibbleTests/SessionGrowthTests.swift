import Foundation
import Nibble
import NibbleCore
import NibbleModels
import NibbleTestSupport
import Testing

/// A session takes memory as its rows grow, and computes what it would have computed with all of it from the beginning.
@Suite struct SessionGrowthTests {
    enum Kind: String, CaseIterable {
        case stories
        /// Rotary positions, and a window in one of its layers.
        case windowed = "qwen2_window"

        func load() throws -> PretrainedModel {
            switch self {
            case .stories: try ExampleModel.stories.get().model
            case .windowed: try FixtureModel(rawValue, in: Fixtures.repository.appending(path: "Tests/Fixtures")).load()
            }
        }
    }

    private func model(_ kind: Kind, initialCapacity: Int) throws -> LanguageModel {
        let loaded = try kind.load()
        var options = loaded.model.options
        options.initialCapacity = initialCapacity
        return try LanguageModel(loaded.model.architecture, loaded.weights, options: options)
    }

    private func tokens(_ count: Int, from start: Int) -> [Int32] { (0..<count).map { Int32((start + $0 * 37) % 50 + 3) } }

    @Test("feeds, copied rows and cut rows give the same logits", arguments: Kind.allCases)
    func sameLogits(_ kind: Kind) throws {
        let request = SessionRequest(rows: 2, capacity: 200)
        let (growing, whole) = (
            try model(kind, initialCapacity: 16).makeSession(request), try model(kind, initialCapacity: 200).makeSession(request)
        )
        #expect(growing.cacheByteCount < whole.cacheByteCount)
        func compare(_ inputs: [RowTokens]) throws {
            let got = try growing.feed(inputs, logits: .last) { Array($0.values) }
            #expect(try whole.feed(inputs, logits: .last) { Array($0.values) } == got)
        }
        try compare([RowTokens(row: 0, tokens: tokens(10, from: 1)), RowTokens(row: 1, tokens: tokens(12, from: 5))])
        for _ in 0..<30 { try compare([RowTokens(row: 0, tokens: [7]), RowTokens(row: 1, tokens: [8])]) }
        for session in [growing, whole] { try session.gather([1, 1]) }
        try compare([RowTokens(row: 0, tokens: tokens(60, from: 2)), RowTokens(row: 1, tokens: [9])])
        for session in [growing, whole] { try session.truncate(row: 0, to: 90) }
        try compare([RowTokens(row: 0, tokens: tokens(100, from: 4))])
        #expect(growing.length(ofRow: 0) == 190)
    }

    @Test("the capacity that was asked for is still the limit")
    func limit() throws {
        let session = try model(.stories, initialCapacity: 16).makeSession(SessionRequest(rows: 1, capacity: 40))
        try session.feed([RowTokens(row: 0, tokens: tokens(40, from: 0))], logits: .last) { _ in }
        #expect(throws: SessionError.capacityExceeded(row: 0, length: 40, adding: 1, capacity: 40)) {
            try session.feed([RowTokens(row: 0, tokens: [5])], logits: .last) { _ in }
        }
    }

    @Test("a session for ten million tokens takes no more memory than one for a few thousand")
    func hugeCapacity() throws {
        let model = try model(.stories, initialCapacity: SessionOptions.defaultInitialCapacity)
        let huge = try model.makeSession(SessionRequest(rows: 4, capacity: 10_000_000))
        let small = try model.makeSession(SessionRequest(rows: 4, capacity: SessionOptions.defaultInitialCapacity))
        #expect(huge.cacheByteCount == small.cacheByteCount)
    }
}
