// Counts the allocations that a decoded token costs on the CPU:
//
//     swift run -c release --package-path Benchmarks AllocationBenchmark FOLDER [4bit | 8bit]
//
// Two greedy generations of different length have everything but their steps in common. A step should ask the system for no
// memory.

import CAllocationCount
import Nibble

@main
struct AllocationBenchmark {
    static func main() async throws {
        guard CommandLine.arguments.count > 1 else {
            print("usage: AllocationBenchmark FOLDER [4bit | 8bit]")
            return
        }
        let format = CommandLine.arguments.dropFirst(2).first
        let quantization = format.map { BitsAndBytesConfig(loadIn8Bit: $0 == "8bit", loadIn4Bit: $0 == "4bit") }
        let model = try await AutoModel.from(
            pretrained: CommandLine.arguments[1], deviceMap: .device(.cpu), quantization: quantization)
        func allocations(_ tokens: Int) async throws -> Int {
            var config = GenerationConfig(maxNewTokens: tokens, minNewTokens: tokens, doSample: false)
            config.eosTokenId = []
            let before = allocation_count()
            _ = try await model.generate(BatchEncoding(inputIDs: [[1]], attentionMask: [[1]]), config)
            return Int(allocation_count() - before)
        }
        let (short, long) = (16, 80)
        _ = try await allocations(long)
        let first = try await allocations(short)
        let tokens = Double(long - short)
        print("\(Double(try await allocations(long) - first) / tokens) allocations a token")
    }
}
