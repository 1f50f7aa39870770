import NibbleGeneration
import Testing

@Suite struct TextStreamerTests {
    private static let pieces = ["Hel", "lo", " big", " wor", "ld", "\n", "new", " 世", "界", "a", "e", "\u{301}", " "]

    private func streamer(skipsPrompt: Bool = false) -> TextStreamer {
        TextStreamer(skipsPrompt: skipsPrompt) { ids in ids.map { Self.pieces[Int($0)] }.joined() }
    }

    @Test("Text comes out by words, lines and CJK characters")
    func pieces() {
        var streamer = streamer()
        let out = (0..<9).map { streamer.put([Int32($0)]) }
        #expect(out == ["", "", "Hello ", "big ", "", "world\n", "", "new 世", "界"])
        #expect(streamer.put([9]) == "")
        #expect(streamer.finish() == "a")
        #expect(streamer.finish() == "")
    }

    @Test("The prompt can be left out, for each sequence anew")
    func skipsPrompt() {
        var streamer = streamer(skipsPrompt: true)
        #expect(streamer.put([2, 3, 4]) == "")
        #expect(streamer.put([0, 1, 2]) == "Hello ")
        #expect(streamer.finish() == "big")
        #expect(streamer.put([5]) == "")
        #expect(streamer.put([5]) == "\n")
    }

    @Test("Combining characters do not lose what precedes them")
    func combining() {
        var streamer = streamer()
        #expect(streamer.put([10]) == "")
        #expect(streamer.put([11]) == "")
        #expect(streamer.put([12]) == "e\u{301} ")
    }
}
