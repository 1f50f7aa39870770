import Foundation
import Nibble

/// Loads a tokenizer, then encodes a text and hostile inputs of one megabyte, each five times.
///
///     swift run -c release --package-path Benchmarks TokenizerBenchmark FOLDER TEXT
@main
struct TokenizerBenchmark {
    static func main() throws {
        let arguments = CommandLine.arguments
        guard arguments.count == 3 else {
            print("usage: TokenizerBenchmark FOLDER TEXT")
            exit(64)
        }
        let folder = URL(filePath: arguments[1])
        let tokenizer = try AutoTokenizer.from(folder: folder)
        try report("load, \(tokenizer.vocabularySize) entries") { _ = try AutoTokenizer.from(folder: folder) }
        let text = try String(contentsOfFile: arguments[2], encoding: .utf8)
        let megabyte = 1 << 20
        let long = String(repeating: text, count: megabyte / max(text.utf8.count, 1) + 1)
        for (name, input) in [
            ("English", String(long.prefix(megabyte))), ("one letter", String(repeating: "a", count: megabyte)),
            ("spaces", String(repeating: " ", count: megabyte)),
        ] {
            report("encode 1 MB, \(name)") { _ = tokenizer.encode(input) }
        }
    }

    /// Prints the median of five runs, in processor seconds of this thread.
    private static func report(_ name: String, _ body: () throws -> Void) rethrows {
        var times = [Double]()
        for _ in 0..<5 {
            let start = processorSeconds()
            try body()
            times.append(processorSeconds() - start)
        }
        print(String(format: "%@: %.0f ms", name.padding(toLength: 28, withPad: " ", startingAt: 0), times.sorted()[2] * 1000))
    }

    private static func processorSeconds() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
    }
}
