// Times linear layers on the CPU by format, shape and rows, beside what the machine's memory and multipliers give:
//
//     swift run -c release --package-path Benchmarks LinearBenchmark [threads]
//
// Few rows are bound by memory: GB/s of weights read. Many rows are bound by arithmetic: GFLOP/s, and the share of what the
// multipliers give in float32.

import CPeak
import NibbleCPU
import NibbleConformance
import NibbleCore

@main
struct LinearBenchmark {
    static let shapes = [(4096, 4096), (2048, 5632), (576, 1536)]
    static let rows = [1, 4, 16, 128, 512]

    static func main() throws {
        let threads = CommandLine.arguments.dropFirst().first.flatMap { Int($0) }
        let backend = CPUBackend(threads: threads)
        let bandwidth = try backend.measureReadBandwidth()
        let arithmetic = try Ceiling.arithmetic(backend)
        print(
            "\(backend.summary); memory \(Report.number(bandwidth / 1e9)) GB/s, float32 \(Report.number(arithmetic / 1e9)) GFLOP/s"
        )
        print("| N × K | format | " + rows.map { "M = \($0)" }.joined(separator: " | ") + " |")
        print("| --- | --- |" + String(repeating: " --- |", count: rows.count))
        for shape in shapes {
            for format in Format.all {
                let weights = try Weights(backend, format, outFeatures: shape.0, inFeatures: shape.1)
                let cells = try rows.map { rows in
                    let seconds = try weights.seconds(rows: rows)
                    return Report.cell(weights, rows: rows, seconds: seconds, bandwidth: bandwidth, arithmetic: arithmetic)
                }
                print("| \(shape.0) × \(shape.1) | \(format.name) | \(cells.joined(separator: " | ")) |")
            }
        }
    }
}

/// A stored form with the way it is multiplied.
struct Format {
    let name: String
    let weight: WeightFormat
    let arithmetic: LinearArithmetic

    static let all: [Format] = [
        Format(name: "float32", weight: .dense(.float32), arithmetic: LinearArithmetic()),
        Format(name: "bfloat16", weight: .dense(.bfloat16), arithmetic: LinearArithmetic()),
        Format(name: "float16", weight: .dense(.float16), arithmetic: LinearArithmetic()),
        Format(name: "nf4 in float32", weight: .fourBit(FourBitFormat(codebook: .nf4)), arithmetic: LinearArithmetic()),
        Format(
            name: "nf4 in float16", weight: .fourBit(FourBitFormat(codebook: .nf4)),
            arithmetic: LinearArithmetic(computeDType: .float16)),
        Format(
            name: "nf4 in bfloat16", weight: .fourBit(FourBitFormat(codebook: .nf4)),
            arithmetic: LinearArithmetic(computeDType: .bfloat16)),
        Format(
            name: "nf4 nested in bfloat16", weight: .fourBit(FourBitFormat(codebook: .nf4, isNested: true)),
            arithmetic: LinearArithmetic(computeDType: .bfloat16)),
        Format(
            name: "nf4, int8 activations", weight: .fourBit(FourBitFormat(codebook: .nf4)),
            arithmetic: LinearArithmetic(computeDType: .bfloat16, allowsInt8Activations: true)),
        Format(name: "int8", weight: .int8, arithmetic: LinearArithmetic()),
    ]
}

/// Several copies of a weight, so that they come from memory and not from a cache.
struct Weights {
    let backend: CPUBackend
    let layers: [LinearGroup]
    let outFeatures: Int
    let inFeatures: Int
    let byteCount: Int

    private static let spread = 256 << 20
    private static let maximumCopies = 24

    init(_ backend: CPUBackend, _ format: Format, outFeatures: Int, inFeatures: Int) throws {
        self.backend = backend
        self.outFeatures = outFeatures
        self.inFeatures = inFeatures
        let source = Tensor.host(
            HostValues.random(outFeatures * inFeatures, seed: 1), .float32, [outFeatures, inFeatures])
        var layers = [LinearGroup]()
        var bytes = 0
        repeat {
            let weight = try backend.prepare(try backend.quantize(source, to: format.weight))
            bytes = weight.byteCount
            layers.append(LinearGroup([Linear(name: format.name, weight: weight, arithmetic: format.arithmetic)]))
        } while layers.count * bytes < Weights.spread && layers.count < Weights.maximumCopies
        self.layers = layers
        byteCount = bytes
    }

    /// The fastest of many calls: neighbours on the machine only slow things down.
    func seconds(rows: Int) throws -> Double {
        let input = Tensor.host(HostValues.random(rows * inFeatures, seed: 2), .float32, [rows, inFeatures])
        let output = try backend.allocate(.float32, [rows, outFeatures])
        return try Timing.best { call in
            try backend.linear(input, layers[call % layers.count], epilogue: LinearEpilogue(), into: output)
        }
    }
}

enum Timing {
    /// Seconds of the fastest call in about a third of a second, at least three.
    static func best(_ body: (Int) throws -> Void) throws -> Double {
        let clock = ContinuousClock()
        let start = clock.now
        var best = Double.infinity
        var calls = 0
        while calls < 3 || clock.now - start < .milliseconds(300) {
            let elapsed = try clock.measure { try body(calls) }
            best = min(best, elapsed / .seconds(1))
            calls += 1
        }
        return best
    }
}

/// What the processor could do.
enum Ceiling {
    /// Float32 multiplications and additions a second of all threads together, on registers alone.
    static func arithmetic(_ backend: CPUBackend) throws -> Double {
        let iterations = 1 << 20
        let seconds = try Timing.best { _ in
            backend.pool.parallel(count: backend.pool.threadCount) { range, _ in
                for _ in range { peak_multiply(iterations) }
            }
        }
        return Double(iterations * backend.pool.threadCount) * peak_flops_per_iteration() / seconds
    }
}

enum Report {
    static func cell(_ weights: Weights, rows: Int, seconds: Double, bandwidth: Double, arithmetic: Double) -> String {
        guard rows > 4 else {
            let rate = Double(weights.byteCount) / seconds
            return "\(number(rate / 1e9)) GB/s (\(Int(100 * rate / bandwidth)) %)"
        }
        let operations = 2 * Double(weights.outFeatures) * Double(weights.inFeatures) * Double(rows)
        let rate = operations / seconds
        return "\(number(rate / 1e9)) GFLOP/s (\(Int(100 * rate / arithmetic)) %)"
    }

    static func number(_ value: Double) -> String { String(Double(Int(value * 10)) / 10) }
}
