// Times linear layers on the CPU by format, shape and rows, beside what the machine's memory and multipliers give:
//
//     swift run -c release --package-path Benchmarks LinearBenchmark [threads]

import CPeak
import NibbleConformance

@main
struct Main {
    static func main() throws {
        let threads = CommandLine.arguments.dropFirst().first.flatMap { Int($0) }
        try NibbleConformance.LinearBenchmark.run(threads: threads, flopsPerIteration: peak_flops_per_iteration()) {
            peak_multiply($0)
        }
    }
}
