// Counts the allocations that a decoded token costs on the CPU:
//
//     swift run -c release --package-path Benchmarks AllocationBenchmark FOLDER [4bit | 8bit]
//
// Buffers are made when a session is; a step should ask the system for no memory.

import CAllocationCount
import Nibble
import NibbleModels

@main
struct AllocationBenchmark {
    static func main() async throws {
        guard CommandLine.arguments.count > 1 else {
            print("usage: AllocationBenchmark FOLDER [4bit | 8bit]")
            return
        }
        let format = CommandLine.arguments.dropFirst(2).first
        let quantization = format.map { BitsAndBytesConfig(loadIn8Bit: $0 == "8bit", loadIn4Bit: $0 == "4bit") }
        let pretrained = try await AutoModel.from(
            pretrained: CommandLine.arguments[1], deviceMap: .device(.cpu), quantization: quantization)
        let tokens = 64
        let session = try pretrained.model.makeSession(SessionRequest(rows: 1, capacity: tokens + 8))
        var inputs = [RowTokens(row: 0, tokens: [1])]
        func step() throws {
            let next = try session.feed(inputs, sampling: .greedy)
            inputs[0].tokens[0] = next[0]
        }
        for _ in 0..<4 { try step() }
        let before = allocation_count()
        for _ in 0..<tokens { try step() }
        print("\(Double(allocation_count() - before) / Double(tokens)) allocations a token")
    }
}
