import ArgumentParser
import Foundation
import Nibble
import NibbleCore

struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure loading, prompt reading and decoding.",
        discussion: """
            Every combination of -p (prompt tokens) and -b (rows side by side), and of -n (decoded tokens) and -b, is run. Decoding \
            is also given as a share of the device's measured bandwidth: the reads of a CPU, the copies of a GPU. --load measures \
            one load instead. --requests, --long-prompt and --leak-check measure an engine that serves many requests at once. \
            --prompt-lookup continues a text that repeats itself: without look-up, with it and, with \
            --assistant, with the drafts of a smaller model.

            Example: nibble bench MODEL --load-in-4bit --quant-type nf4 -p 512 -n 128 -b 1,8
            """)

    @Argument(help: "A model folder, a GGUF file, or owner/name on the Hub.", completion: .file())
    var model: String

    @Option(name: .short, parsing: .unconditional, help: "Prompt lengths, separated by commas; 0: none.")
    var p = "512"

    @Option(name: .short, parsing: .unconditional, help: "Numbers of tokens to decode, separated by commas; 0: none.")
    var n = "128"

    @Option(name: .short, parsing: .unconditional, help: "Batch sizes, separated by commas.")
    var b = "1"

    @Option(name: .shortAndLong, parsing: .unconditional, help: "Tokens of context before decoding begins.")
    var depth = 0

    @Option(help: "Repetitions of each case, after one that does not count.")
    var repetitions = 5

    @Flag(name: .customLong("load"), help: "Measure loading: seconds, processor seconds, peak memory.")
    var measuresLoad = false

    @Option(help: "Measure prompt look-up of this many tokens against plain greedy decoding of -n tokens.")
    var promptLookup: Int?

    @Option(help: "With --prompt-lookup: a smaller model whose drafts are measured too.", completion: .file())
    var assistant: String?

    @Option(
        help: "With --prompt-lookup: a file with the text to continue (default: a short text that repeats itself).",
        completion: .file())
    var text: String?

    @Option(help: "Attach so many adapters of random numbers to all linear layers but the head; rows use them in turn.")
    var randomAdapters = 0

    @Option(help: "With --random-adapters: their rank.")
    var adapterRank = 16

    @Flag(help: "Print one JSON object a case.")
    var json = false

    @OptionGroup(title: "Requests")
    var engine: RequestBenchOptionsGroup

    @OptionGroup(title: "Adapters")
    var adapters: AdapterOptionsGroup

    @OptionGroup(title: "Load options")
    var load: LoadOptionsGroup

    func validate() throws {
        let lengths = try numbers(p, "-p") + numbers(n, "-n")
        if !measuresLoad, !engine.isAsked, !lengths.contains(where: { $0 > 0 }) {
            throw ValidationError("-p and -n are both 0: there is nothing to measure")
        }
        guard 0...BenchCommand.maximumTokens ~= depth else {
            throw ValidationError("--depth must be from 0 to \(BenchCommand.maximumTokens), found \(depth)")
        }
        let batches = try numbers(b, "-b")
        if batches.contains(0) { throw ValidationError("-b must be 1 or more, found \"\(b)\"") }
        let longest = (lengths.max() ?? 0) + depth
        guard longest <= BenchCommand.maximumTokens / (batches.max() ?? 1) else {
            throw ValidationError("-b times the tokens of a row must be at most \(BenchCommand.maximumTokens)")
        }
        if repetitions < 1 { throw ValidationError("--repetitions must be 1 or more, found \(repetitions)") }
        guard 0...64 ~= randomAdapters else {
            throw ValidationError("--random-adapters must be from 0 to 64, found \(randomAdapters)")
        }
        guard 1...4096 ~= adapterRank else {
            throw ValidationError("--adapter-rank must be from 1 to 4096, found \(adapterRank)")
        }
        if promptLookup == nil, assistant != nil || text != nil {
            throw ValidationError("--assistant and --text need --prompt-lookup")
        }
        if let promptLookup, promptLookup < 1 {
            throw ValidationError("--prompt-lookup must be 1 or more, found \(promptLookup)")
        }
    }

    func run() async throws {
        if measuresLoad { return try await runLoad() }
        if engine.isAsked { return try await runRequests() }
        let text = try text.map(TextFile.read) ?? Self.repeatingText
        let pretrained = try await AutoModel.from(pretrained: model, configuration: try load.configuration(adapters))
        Report.show(pretrained.report, quiet: load.quiet)
        var benchmark = try Benchmark(pretrained, repetitions: repetitions, depth: depth)
        if randomAdapters > 0 { try benchmark.attachRandomAdapters(randomAdapters, rank: adapterRank) }
        if let promptLookup { return try await runAssisted(benchmark, text, lookup: promptLookup) }
        if !json {
            Console.output(String(format: "\(benchmark.bandwidthName) bandwidth %.1f GB/s", benchmark.bandwidth / 1e9))
            Console.output("| test | batch | tokens/s | weights | of bandwidth |\n| --- | --- | --- | --- | --- |")
        }
        let tests =
            try numbers(p, "-p").filter { $0 > 0 }.map(Benchmark.Test.prompt)
            + numbers(n, "-n").filter { $0 > 0 }.map(Benchmark.Test.decode)
        for test in tests {
            for batch in try numbers(b, "-b") {
                show(try benchmark.run(test, batch: batch))
                try Console.checkOutput()
            }
        }
    }

    /// A text whose likely continuation repeats parts of it.
    private static let repeatingText = """
        The recipe: take two eggs, a cup of flour and a cup of milk. Beat the eggs, add the flour, add the milk, and let it rest. \
        The recipe again: take two eggs, a cup of flour and a cup of milk. Beat the eggs, add the flour, add the milk, and let it \
        rest. The recipe once more: take two eggs,
        """

    private func runAssisted(_ benchmark: Benchmark, _ text: String, lookup: Int) async throws {
        let tokenizer = try await AutoTokenizer.from(pretrained: model, configuration: load.configuration())
        let prompt = tokenizer.encode(text)
        let draft = try await load.draftModel(assistant)
        if !json { Console.output("| decoding | new tokens | forwards | tokens/s | same ids |\n| --- | --- | --- | --- | --- |") }
        for count in try numbers(n, "-n") where count > 1 {
            for result in try benchmark.assisted(prompt, newTokens: count, lookup: lookup, assistant: draft?.model) {
                show(result)
            }
        }
    }

    private func show(_ result: Benchmark.AssistedResult) {
        guard json else {
            return Console.output(
                String(format: "| %@ | %d | %d | %.1f | ", result.name, result.newTokens, result.forwards, result.tokensPerSecond)
                    + (result.sameTokens ? "yes |" : "NO |"))
        }
        let members: [(String, JSONValue)] = [
            ("decoding", .string(result.name)), ("tokens", .int(result.newTokens)), ("forwards", .int(result.forwards)),
            ("tokens_per_second", .double(result.tokensPerSecond)), ("same_ids", .bool(result.sameTokens)),
        ]
        Console.output(JSONValue.object(JSONObject(members)).encoded(.compact))
    }

    private func runLoad() async throws {
        let configuration = try load.configuration(adapters)
        let folder = try await PretrainedFiles.folder(for: model, [.config, .weights], configuration)
        let measured = try PretrainedModel.measuringLoad(folder: folder, configuration).measurement
        if json {
            var members: [(String, JSONValue)] = [
                ("seconds", .double(measured.seconds)), ("processor_seconds", .double(measured.processorSeconds)),
                ("checkpoint_bytes", .int(measured.checkpointBytes)), ("stored_bytes", .int(measured.storedBytes)),
            ]
            if let peak = measured.peakResidentBytes { members.append(("peak_resident_bytes", .int(peak))) }
            Console.output(JSONValue.object(JSONObject(members)).encoded(.compact))
        } else {
            let rate = Double(measured.checkpointBytes) / measured.seconds / 1e9
            Console.output(
                String(
                    format: "loaded in %.2f s (%.2f processor seconds, %.2f GB/s), ", measured.seconds, measured.processorSeconds,
                    rate)
                    + "\(ByteCount.text(measured.storedBytes)) of weights, peak \(measured.peakResidentBytes.map(ByteCount.text) ?? "unknown") resident"
            )
        }
    }

    private func show(_ result: Benchmark.Result) {
        let (kind, tokens) =
            switch result.test {
            case .prompt(let tokens): ("prompt", tokens)
            case .decode(let tokens): ("decode", tokens)
            }
        guard json else {
            let share = result.bandwidthFraction.map { String(format: "%.1f %%", $0 * 100) } ?? ""
            return Console.output(
                String(
                    format: "| %@ %d | %d | %.1f ± %.1f | %@ | %@ |", kind, tokens, result.batch, result.mean,
                    result.standardDeviation, ByteCount.text(result.weightBytes), share))
        }
        var members: [(String, JSONValue)] = [
            ("test", .string(kind)), ("tokens", .int(tokens)), ("batch", .int(result.batch)),
            ("tokens_per_second", .double(result.mean)), ("standard_deviation", .double(result.standardDeviation)),
            ("weight_bytes", .int(result.weightBytes)), ("bandwidth", .double(result.bandwidth)),
        ]
        if let share = result.bandwidthFraction { members.append(("bandwidth_fraction", .double(share))) }
        if let peak = ProcessMemory.bytes("VmHWM") { members.append(("peak_memory", .int(peak))) }
        Console.output(JSONValue.object(JSONObject(members)).encoded(.compact))
    }

    /// Tokens that a measurement may make up.
    private static let maximumTokens = 1 << 24

    private func numbers(_ text: String, _ option: String) throws -> [Int] {
        let numbers = text.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) }
        guard numbers.allSatisfy({ 0...BenchCommand.maximumTokens ~= ($0 ?? -1) }) else {
            throw ValidationError(
                "\(option) must be numbers from 0 to \(BenchCommand.maximumTokens), separated by commas, found \"\(text)\"")
        }
        return numbers.compactMap(\.self)
    }
}
