import NibbleHub
import Testing

@Suite struct ContentHashTests {
    /// Answers of `sha256sum` and `git hash-object`.
    @Test(
        "known answers, in pieces of any size",
        arguments: [
            (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
            (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d", "f76dd238ade08917e6712764a16a22005a50573d"),
            (55, "27d3069ecafb8507f92fa750312a99afe0908525e67b2abe8942b51659945b1b", "5a2671066085c252e2aaba3c9ec4472823312d0c"),
            (56, "3428ab653c0a1ac104ee80fd3bed55135da5556ca4c26da9c781ae56364a6969", "f0c53bf6ea1267b5983fa728258cb38c1f720b12"),
            (63, "b5ec25bd1c4b7c94c9ea9d235272e43f644f561d7c8c7e58ec5fa9aefe95ef07", "77692d2070ee3da1bc9e8c62eeb6ea19dc9c7621"),
            (64, "a08f82c23e6c13629d8e33d0d2a13005fb104363eb793b5e8842044951d27764", "c8c7b915b70f45fd51367dd6da80e53dcd5e26e6"),
            (65, "c0a0263ae1ab4e9dda9cd2ed6c44b23ee6ff75c90c640185f462fad7f24fcd6f", "53fa8b9a8d0cffc79f883a5a6f97fce505bbf0b2"),
            (119, "b4639d08cdba917a7875088b4e05633a7812e14282482de937915c9799b17250", "aeda2cf990c809bf0741cddbd72edb1464cb84f8"),
            (120, "e4fce14f6aa99657bdffe9f1da59ce85f0398479e9af7e9de6ccf53e174447ab", "5ba089525b60c7324738efae05be81dc4894159f"),
            (
                1000, "04a2a26617da9ddbb0b64cec2b6079d2cd760cf70691de063552c06ea8d153e2",
                "55f3e5a9e97414a57e2bafd58c1e87d02a5d1989"
            ),
            (
                70000, "f0beda104aea1f6824c89affd6554217daca358273a29d59df2133be67fa3039",
                "c7c5ad9f36ea19aff110aa3f2e9cb63912fc273d"
            ),
        ])
    func answers(count: Int, sha256: String, blob: String) throws {
        let bytes = HubFixture.pattern(count)
        for expected in [sha256, blob] {
            for piece in [1, 13, 63, 64, 65, 1000, 100_000] {
                var hash = try #require(ContentHash(etag: expected, byteCount: count))
                for start in stride(from: 0, to: count, by: piece) {
                    Array(bytes[start..<min(start + piece, count)]).withUnsafeBytes { hash.update($0) }
                }
                #expect(hash.text == expected)
            }
        }
    }

    @Test("other tags are no hashes", arguments: ["", "abc", "storage-1", String(repeating: "g", count: 40)])
    func others(tag: String) { #expect(ContentHash(etag: tag, byteCount: 0) == nil) }
}
