import Foundation
import Synchronization

/// What is asked of the server.
struct Settings {
    var port = 8080
    var requests = 1000
    /// Requests a second, after a fixed schedule; 0: each client sends its next request when it has its last answer.
    var rate = 10.0
    var clients = 64
    var maxTokens = 32
    /// Words of each prompt.
    var promptWords = 12
    /// Shares of requests that are left after a few tokens, and that are read at 1 KB a second.
    var disconnects = 0.1
    var slowReaders = 0.05
    var pid: Int?
    /// Instead of the load: words of a prompt that arrives beside `clients` streams.
    var longPrompt: Int?
    /// Instead of the load: how often a request is left at each moment of its life.
    var cancels: Int?

    init(_ arguments: [String]) {
        var values: [String: String] = [:]
        for index in stride(from: 0, to: arguments.count - 1, by: 2) { values[arguments[index]] = arguments[index + 1] }
        port = values["--port"].flatMap { Int($0) } ?? port
        requests = values["--requests"].flatMap { Int($0) } ?? requests
        rate = values["--rate"].flatMap { Double($0) } ?? rate
        clients = values["--clients"].flatMap { Int($0) } ?? clients
        maxTokens = values["--max-tokens"].flatMap { Int($0) } ?? maxTokens
        disconnects = values["--disconnects"].flatMap { Double($0) } ?? disconnects
        slowReaders = values["--slow-readers"].flatMap { Double($0) } ?? slowReaders
        promptWords = values["--prompt-words"].flatMap { Int($0) } ?? promptWords
        pid = values["--pid"].flatMap { Int($0) }
        longPrompt = values["--long-prompt"].flatMap { Int($0) }
        cancels = values["--cancels"].flatMap { Int($0) }
    }
}

/// Sends requests after a fixed schedule, whatever the server does: latencies count from when a request should have left.
final class Load: Sendable {
    private let settings: Settings
    private let start: ContinuousClock.Instant
    private let next = Atomic<Int>(0)
    private let results = Mutex(Results())
    /// The server's memory after a tenth of the requests.
    private let memoryEarly = Atomic<Int>(0)

    init(_ settings: Settings) {
        self.settings = settings
        start = .now + .milliseconds(100)
    }

    /// One client: takes the next request of the schedule until there is none.
    func runClient() {
        while true {
            let index = next.add(1, ordering: .relaxed).oldValue
            guard index < settings.requests else { return }
            if index == settings.requests / 10, let pid = settings.pid {
                memoryEarly.store(ServerProcess(id: pid).memory, ordering: .relaxed)
            }
            let due = settings.rate > 0 ? start + .seconds(Double(index) / settings.rate) : .now
            let wait = (due - .now) / .seconds(1)
            if wait > 0 { usleep(UInt32(wait * 1e6)) }
            let late = (ContinuousClock.now - due) / .seconds(1)
            var record = Results()
            let outcome = (try? ask(index, due, &record)) ?? .failed
            results.withLock { all in
                all.counts[outcome, default: 0] += 1
                all.firstToken += record.firstToken
                all.betweenTokens += record.betweenTokens
                all.longestSilence = max(all.longestSilence, record.longestSilence)
                all.tokens += record.tokens
                all.latest = max(all.latest, late)
                if outcome == .finished { all.whole.append((ContinuousClock.now - due) / .seconds(1)) }
            }
        }
    }

    private func ask(_ index: Int, _ due: ContinuousClock.Instant, _ record: inout Results) throws -> Outcome {
        var random = FixedRandom(state: UInt64(index))
        let leaves = Double.random(in: 0..<1, using: &random) < settings.disconnects
        let isSlow = !leaves && Double.random(in: 0..<1, using: &random) < settings.slowReaders
        let prompt = Prompt(index, words: settings.promptWords, maxTokens: settings.maxTokens)
        let stream = try CompletionStream(prompt, port: settings.port, receiveBuffer: isSlow ? 2048 : nil)
        if stream.status == 429 || stream.status == 503 { return .refused }
        guard stream.status == 200 else { return .failed }
        let patience = Int.random(in: 1..<8, using: &random)
        var last = due
        var hasToken = false
        while let line = try stream.next(atMost: isSlow ? 256 : 65536) {
            if isSlow { usleep(250_000) }
            let now = ContinuousClock.now
            if line != .other { record.longestSilence = max(record.longestSilence, (now - last) / .seconds(1)) }
            if line == .end { return .finished }
            if line == .error { return .failed }
            guard line == .piece else { continue }
            record.tokens += 1
            if !isSlow {
                if hasToken { record.betweenTokens.append((now - last) / .seconds(1)) }
                if !hasToken { record.firstToken.append((now - due) / .seconds(1)) }
            }
            hasToken = true
            last = now
            if leaves, record.tokens >= patience { return .cancelled }
        }
        return .failed
    }

    func report(_ seconds: Double, memoryAfter: Int, descriptorsBefore: Int, descriptorsAfter: Int) -> String {
        let all = results.withLock { $0 }
        let counts = Outcome.allCases.map { "\"\($0.rawValue)\": \(all.counts[$0] ?? 0)" }.joined(separator: ", ")
        let memory =
            settings.pid == nil
            ? ""
            : """
            , "memory_growth_bytes": \(memoryAfter - memoryEarly.load(ordering: .relaxed)), "descriptors_before": \(descriptorsBefore), \
            "descriptors_after": \(descriptorsAfter)
            """
        return """
            {"submitted": \(settings.requests), \(counts), "seconds": \(String(format: "%.1f", seconds)), \
            "pieces_per_second": \(String(format: "%.1f", Double(all.tokens) / seconds)), \
            "tokens_per_second": \(String(format: "%.1f", Double((all.counts[.finished] ?? 0) * settings.maxTokens) / seconds)), \
            "first_token_ms": \(Results.percentiles(all.firstToken)), "between_tokens_ms": \(Results.percentiles(all.betweenTokens)), \
            "request_ms": \(Results.percentiles(all.whole)), "longest_silence_s": \(String(format: "%.2f", all.longestSilence)), \
            "latest_start_s": \(String(format: "%.2f", all.latest))\(memory)}
            """
    }
}

@main
enum Main {
    static func main() throws {
        signal(SIGPIPE, SIG_IGN)
        let settings = Settings(Array(CommandLine.arguments.dropFirst()))
        if let words = settings.longPrompt { return print(try LongPromptProbe(settings: settings).run(words: words)) }
        if let count = settings.cancels { return print(try CancelProbe(settings: settings).run(count: count)) }
        let process = settings.pid.map(ServerProcess.init)
        let before = process?.descriptors ?? 0
        let load = Load(settings)
        let began = ContinuousClock.now
        let group = DispatchGroup()
        for _ in 0..<settings.clients {
            group.enter()
            Thread.detachNewThread {
                load.runClient()
                group.leave()
            }
        }
        group.wait()
        let seconds = (ContinuousClock.now - began) / .seconds(1)
        sleep(2)
        print(
            load.report(
                seconds, memoryAfter: process?.memory ?? 0, descriptorsBefore: before, descriptorsAfter: process?.descriptors ?? 0
            ))
        // What the server still holds: no request runs, and no block is in use.
        for line in try Connection.get("/metrics", port: settings.port).split(separator: "\n") where !line.hasPrefix("#") {
            if ["requests_running", "requests_waiting", "cache_usage_perc", "request_success"].contains(where: line.contains) {
                print(line)
            }
        }
    }
}
