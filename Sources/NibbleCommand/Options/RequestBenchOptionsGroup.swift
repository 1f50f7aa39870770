import ArgumentParser
import Nibble

/// Options of `nibble bench` for requests through an engine.
struct RequestBenchOptionsGroup: ParsableArguments {
    @Option(help: "Measure an engine under this many requests.")
    var requests: Int?

    @Option(help: "Measure the gap between tokens of 8 streams while a prompt of this many tokens arrives.")
    var longPrompt: Int?

    @Option(help: "Run this many small requests, cancel one of ten, and show memory and cache blocks in use.")
    var leakCheck: Int?

    @Option(help: "Requests that run side by side.")
    var slots = 16

    @Option(help: "Copies of the model, each on a GPU of its own with as many slots.")
    var dpSize = 1

    @Option(help: ArgumentHelp("Prompt lengths, drawn evenly.", valueName: "low-high"))
    var promptRange = "32-512"

    @Option(help: ArgumentHelp("Numbers of tokens to generate, drawn evenly.", valueName: "low-high"))
    var outputRange = "16-128"

    @Option(help: "Tokens that all prompts begin with.")
    var sharedPrefix = 0

    @Option(help: "Requests a second (default: all at once).")
    var rate: Double?

    @Flag(help: "Every second request samples with top-p and a repetition penalty.")
    var mixedSampling = false

    @Option(
        help: ArgumentHelp("Measure --requests again with all answers held to this JSON schema.", valueName: "file"),
        completion: .file(extensions: ["json"]))
    var jsonSchema: String?

    /// What all answers are held to; `nil`: nothing.
    /// - Throws: ``CommandFailure`` that names the file; `TextFile.ReadError`
    func grammar() throws -> GenerationGrammar? {
        try jsonSchema.map { file in
            let text = try TextFile.read(file)
            return try CommandFailure.naming(file) { try GenerationGrammar(jsonSchema: text) }
        }
    }

    /// Whether one of the measurements was asked for.
    var isAsked: Bool { requests != nil || longPrompt != nil || leakCheck != nil }

    func validate() throws {
        for (name, value) in [
            ("--requests", requests), ("--long-prompt", longPrompt), ("--leak-check", leakCheck), ("--slots", slots),
            ("--dp-size", dpSize),
        ] {
            if let value, !(1...Self.limit ~= value) {
                throw ValidationError("\(name) must be from 1 to \(Self.limit), found \(value)")
            }
        }
        if longPrompt != nil, slots < 9 { throw ValidationError("--long-prompt needs --slots of 9 or more, found \(slots)") }
        guard 0...Self.limit ~= sharedPrefix else {
            throw ValidationError("--shared-prefix must be from 0 to \(Self.limit), found \(sharedPrefix)")
        }
        if let rate, !(rate > 0 && rate.isFinite) { throw ValidationError("--rate must be above 0, found \(rate)") }
        if jsonSchema != nil, requests == nil { throw ValidationError("--json-schema needs --requests") }
        _ = try load()
    }

    /// The largest number of tokens, or of requests.
    private static let limit = 1 << 24

    /// The load that the options describe.
    func load() throws -> RequestBenchmark.Load {
        var load = RequestBenchmark.Load()
        load.requests = requests ?? 0
        load.promptRange = try range(promptRange, "--prompt-range")
        load.outputRange = try range(outputRange, "--output-range")
        load.sharedPrefix = sharedPrefix
        load.rate = rate
        load.mixesSampling = mixedSampling
        return load
    }

    private func range(_ text: String, _ option: String) throws -> ClosedRange<Int> {
        let bounds = text.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
        guard bounds.count == 2, let low = bounds[0], let high = bounds[1], 1 <= low, low <= high,
            high <= Self.limit
        else {
            throw ValidationError("\(option) must be two numbers up to \(Self.limit) such as 32-512, found \"\(text)\"")
        }
        return low...high
    }
}
