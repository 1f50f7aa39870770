import NibbleServing
import Testing

/// Stop strings in a text that comes in pieces.
@Suite struct StopTextFilterTests {
    @Test(
        "text before a stop string is shown, and nothing that may begin one",
        arguments: [
            (["END"], ["a", "E", "N", "x"], ["a", "", "", "ENx"], nil),
            (["END"], ["aE", "ND", "b"], ["a", ""], "END"),
            (["END", "\n\n"], ["a\n", "b\n", "\nc"], ["a", "\nb", ""], "\n\n"),
            (["aab"], ["aaa", "b"], ["a", ""], "aab"),
            (["\u{1F600}!"], ["x\u{1F600}", "y"], ["x", "\u{1F600}y"], nil),
            (["ab", "b"], ["xab"], ["x"], "ab"),
            (["", "b"], ["abc"], ["a"], "b"),
            ([], ["abc", ""], ["abc", ""], nil),
        ] as [([String], [String], [String], String?)])
    func pieces(_ strings: [String], _ pieces: [String], _ shown: [String], _ stop: String?) {
        var filter = StopTextFilter(strings)
        var got: [String] = []
        var found: String?
        for piece in pieces where found == nil {
            let answer = filter.push(piece)
            got.append(answer.text)
            found = answer.stop
        }
        #expect(got == shown && found == stop)
    }

    @Test("what is held back is shown at the end")
    func end() {
        var filter = StopTextFilter(["END"])
        #expect(filter.push("theEN").text == "the")
        #expect(filter.finish() == "EN")
        #expect(filter.finish() == "")
    }

    @Test("the pieces do not matter", arguments: 0..<50)
    func random(seed: Int) {
        var random = SeededGenerator(seed: UInt64(seed))
        let letters = Array("abé")
        func text(_ count: Int) -> String { String((0..<count).map { _ in letters.randomElement(using: &random) ?? "a" }) }
        let strings = (0..<Int.random(in: 1...3, using: &random)).map { _ in text(Int.random(in: 1...4, using: &random)) }
        let whole = text(40)
        var filter = StopTextFilter(strings)
        var shown = ""
        var rest = whole[...]
        var stop: String?
        while stop == nil, !rest.isEmpty {
            let piece = rest.prefix(Int.random(in: 1...5, using: &random))
            rest = rest.dropFirst(piece.count)
            let answer = filter.push(String(piece))
            shown += answer.text
            stop = answer.stop
        }
        shown += filter.finish()
        // Plainly: the first end of a string in the text.
        let bytes = Array(whole.utf8)
        let end = (1...bytes.count).first { end in strings.contains { bytes[..<end].suffix($0.utf8.count).elementsEqual($0.utf8) }
        }
        let found = end.flatMap { end in strings.first { bytes[..<end].suffix($0.utf8.count).elementsEqual($0.utf8) } }
        #expect(stop == found)
        let expected = end.map { bytes[..<($0 - (found?.utf8.count ?? 0))] } ?? bytes[...]
        #expect(Array(shown.utf8) == Array(expected))
    }
}
