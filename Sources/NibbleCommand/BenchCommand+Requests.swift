import Foundation
import Nibble
import NibbleCore

extension BenchCommand {
    /// Runs the measurements of an engine that were asked for, each with an engine of its own.
    func runRequests() async throws {
        let loading = try load.configuration(adapters)
        let folder = try await AutoModel.download(model, loading)
        let copies = try PretrainedModel.load(folder: folder, loading, copies: engine.dpSize)
        let pretrained = copies[0]
        Report.show(pretrained.report, quiet: load.quiet)
        if let count = engine.requests {
            var load = try engine.load()
            let grammar = try engine.grammar()
            let tokenizer = grammar == nil ? nil : try await AutoTokenizer.from(pretrained: model)
            let benchmark = try await benchmark(copies, context: load.longest, queue: count, tokenizer)
            // Both measurements then find the same prompts in the cache.
            if grammar != nil { _ = try await benchmark.run(load) }
            let result = try await benchmark.run(load)
            show(result)
            if let grammar {
                load.grammar = grammar
                show(try await benchmark.run(load), beside: result)
            }
            await benchmark.end()
        }
        if let length = engine.longPrompt {
            let benchmark = try await benchmark(copies, context: length + length / 4 + 256, queue: 64)
            show(try await benchmark.longPrompt(length))
            await benchmark.end()
        }
        if let count = engine.leakCheck {
            let benchmark = try await benchmark(copies, context: 64, queue: 4 * engine.slots)
            show(try await benchmark.leaks(requests: count))
            await benchmark.end()
        }
        try Console.checkOutput()
    }

    private func benchmark(
        _ copies: [PretrainedModel], context: Int, queue: Int, _ tokenizer: Tokenizer? = nil
    ) async throws -> RequestBenchmark {
        let configuration = EngineConfiguration(maxBatch: engine.slots, context: load.context ?? context, maxQueue: queue)
        return RequestBenchmark(
            try await copies[0].engine(configuration, tokenizer: tokenizer, replicas: Array(copies.dropFirst())))
    }

    /// - Parameter plain: the same without a grammar.
    private func show(_ result: RequestBenchmark.Result, beside plain: RequestBenchmark.Result? = nil) {
        let numbers: [(String, Double)] = [
            ("seconds", result.seconds), ("output_tokens_per_second", Double(result.outputTokens) / result.seconds),
            ("prompt_tokens_per_second", Double(result.promptTokens) / result.seconds),
            ("first_token_p50", result.firstTokens.quantile(0.5)), ("first_token_p99", result.firstTokens.quantile(0.99)),
            ("gap_p50", result.gaps.quantile(0.5)), ("gap_p99", result.gaps.quantile(0.99)), ("gap_max", result.gaps.last ?? 0),
        ]
        let ratio = plain.map { plain in
            Double(result.outputTokens) / result.seconds / (Double(plain.outputTokens) / plain.seconds)
        }
        let counts: [(String, Int)] = [
            ("requests", result.requests), ("prompt_tokens", result.promptTokens), ("output_tokens", result.outputTokens),
            ("preemptions", result.preemptions), ("cached_tokens", result.cachedTokens), ("used_blocks", result.usedBlocks),
        ]
        show(counts, numbers + (ratio.map { [("ratio_to_free_text", $0)] } ?? [])) {
            """
            \(result.requests) requests\(ratio == nil ? "" : " held to the schema") in \(text(result.seconds)) s
            output \(String(format: "%.1f", numbers[1].1)) tokens/s, prompts \(String(format: "%.1f", numbers[2].1)) tokens/s
            first token p50 \(text(numbers[3].1)) s, p99 \(text(numbers[4].1)) s
            between tokens p50 \(text(numbers[5].1)) s, p99 \(text(numbers[6].1)) s, largest \(text(numbers[7].1)) s
            \(result.preemptions) preemptions, \(result.cachedTokens) prompt tokens found in the cache, \
            \(result.usedBlocks) blocks in use at the end\
            \(ratio.map { String(format: "\noutput tokens/s are %.3f of those of free text", $0) } ?? "")
            """
        }
    }

    private func show(_ result: RequestBenchmark.LongPromptResult) {
        let counts = [("prompt_tokens", result.promptTokens), ("streams", result.streams)]
        let numbers = [
            ("largest_gap", result.largestGap), ("target_step", result.targetStep), ("first_token", result.firstToken),
        ]
        show(counts, numbers) {
            """
            a prompt of \(result.promptTokens) tokens beside \(result.streams) streams: largest gap \(text(result.largestGap)) s, \
            \(String(format: "%.2f", result.largestGap / result.targetStep)) of the target step of \(text(result.targetStep)) s; \
            its first token after \(text(result.firstToken)) s
            """
        }
    }

    private func show(_ result: RequestBenchmark.LeakResult) {
        let counts = [
            ("requests", result.requests), ("cancelled", result.cancelled), ("memory_early", result.early),
            ("memory_late", result.late), ("used_blocks", result.usedBlocks),
        ]
        show(counts, []) {
            """
            \(result.requests) requests, \(result.cancelled) cancelled: \(ByteCount.text(result.early)) of anonymous memory after a \
            tenth of them, \(ByteCount.text(result.late)) at the end; \(result.usedBlocks) blocks in use
            """
        }
    }

    private func show(_ counts: [(String, Int)], _ numbers: [(String, Double)], _ lines: () -> String) {
        guard json else { return Console.output(lines()) }
        let members = counts.map { ($0.0, JSONValue.int($0.1)) } + numbers.map { ($0.0, JSONValue.double($0.1)) }
        Console.output(JSONValue.object(JSONObject(members)).encoded(.compact))
    }

    private func text(_ seconds: Double) -> String { String(format: "%.4f", seconds) }
}

extension [Double] {
    /// Of sorted numbers; 0 for none.
    fileprivate func quantile(_ share: Double) -> Double { isEmpty ? 0 : self[Swift.min(Int(share * Double(count)), count - 1)] }
}
