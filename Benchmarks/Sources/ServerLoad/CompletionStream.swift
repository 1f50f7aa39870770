import Foundation

/// A prompt on its way to a server.
struct Prompt {
    var text: String
    var maxTokens: Int
    var seed: Int
    var isStreamed = true

    private static let subjects = [
        "a dog", "a quiet shoe", "the girl Lily", "two birds", "a big red boat", "the moon", "an old tree",
    ]
    private static let filler = "The wind was cold and the road was long and nobody knew where it would end . ".split(
        separator: " ")

    /// - Parameter words: how long it is at least; no two prompts begin alike.
    init(_ seed: Int, words: Int, maxTokens: Int, isStreamed: Bool = true) {
        var random = FixedRandom(state: UInt64(seed))
        let subject = Self.subjects[Int.random(in: 0..<Self.subjects.count, using: &random)]
        text = "Story \(seed). Once upon a time there was \(subject)."
        for index in 0..<max(words - 10, 0) { text += " " + Self.filler[index % Self.filler.count] }
        self.seed = seed
        self.maxTokens = maxTokens
        self.isStreamed = isStreamed
    }

    var body: String {
        "{\"prompt\":\"\(text)\",\"max_tokens\":\(maxTokens),\"seed\":\(seed),\"stream\":\(isStreamed),\"ignore_eos\":true}"
    }
}

/// A streamed answer, read piece by piece.
struct CompletionStream {
    /// What a line of the answer is.
    enum Line { case ping, piece, end, error, other }

    let connection: Connection
    let status: Int

    init(_ prompt: Prompt, port: Int, receiveBuffer: Int? = nil) throws {
        connection = try Connection(port: port, receiveBuffer: receiveBuffer)
        try connection.send("POST", "/v1/completions", prompt.body)
        status = try connection.status()
    }

    /// The next line; `nil` where the connection ends.
    func next(atMost count: Int = 65536) throws -> Line? {
        guard let line = try connection.line(atMost: count) else { return nil }
        if line.hasPrefix(":") { return .ping }
        guard line.hasPrefix("data:") else { return .other }
        if line.hasPrefix("data: [DONE]") { return .end }
        return line.contains("\"error\"") ? .error : .piece
    }

    /// Reads to the next piece.
    /// - Returns: whether there was one.
    func nextPiece() throws -> Bool {
        while let line = try next() {
            switch line {
            case .piece: return true
            case .end, .error: return false
            case .ping, .other: continue
            }
        }
        return false
    }
}
