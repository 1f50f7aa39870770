import NibbleCPU
import NibbleCore

/// Times linear layers, then recurrent mixers, on the CPU: the work of `Benchmarks/`, which as a package of its own sees no `package` declarations.
public enum LinearBenchmark {
    private static let shapes: [(outFeatures: Int, inFeatures: Int)] = [(4096, 4096), (2048, 5632), (576, 1536)]
    private static let rows = [1, 4, 16, 128, 512]

    /// Prints a table of shapes and stored forms by rows. Few rows are bound by memory: bytes of weights a second. Many rows are
    /// bound by arithmetic: operations a second. Each stands beside its share of what the machine gives.
    /// - Parameters:
    ///   - threads: `nil` takes all cores.
    ///   - flopsPerIteration: float32 operations of one iteration of `multiply`.
    ///   - multiply: runs that many iterations on registers alone.
    /// - Throws: ``BackendError``
    public static func run(
        threads: Int?, flopsPerIteration: Double, multiply: @escaping @Sendable (_ iterations: Int) -> Void
    ) throws {
        let backend = CPUBackend(threads: threads)
        let ceilings = (
            bandwidth: try backend.measureReadBandwidth(),
            arithmetic: try arithmetic(backend, flopsPerIteration: flopsPerIteration, multiply)
        )
        let (memory, float32) = (number(ceilings.bandwidth / 1e9), number(ceilings.arithmetic / 1e9))
        print("\(backend.summary); memory \(memory) GB/s, float32 \(float32) GFLOP/s")
        print("| N × K | format | " + rows.map { "M = \($0)" }.joined(separator: " | ") + " |")
        print("| --- | --- |" + String(repeating: " --- |", count: rows.count))
        for shape in shapes {
            for format in TimedFormat.all {
                let layer = try TimedLayer(backend, format, shape.outFeatures, shape.inFeatures)
                let cells = try rows.map { rows in
                    let seconds = try layer.seconds(rows: rows)
                    guard rows > 4 else { return share(Double(layer.byteCount) / seconds, of: ceilings.bandwidth, "GB/s") }
                    let operations = 2 * Double(shape.outFeatures) * Double(shape.inFeatures) * Double(rows)
                    return share(operations / seconds, of: ceilings.arithmetic, "GFLOP/s")
                }
                let name = "\(shape.outFeatures) × \(shape.inFeatures) | \(format.name)"
                print("| \(name) | \(cells.joined(separator: " | ")) |")
            }
        }
        print("")
        try RecurrenceBenchmark.run(backend)
    }

    /// Float32 multiplications and additions a second of all threads together.
    private static func arithmetic(
        _ backend: CPUBackend, flopsPerIteration: Double, _ multiply: @escaping @Sendable (Int) -> Void
    ) throws -> Double {
        let (iterations, threads) = (1 << 20, backend.pool.threadCount)
        let seconds = try fastest { _ in
            backend.pool.parallel(count: threads) { range, _ in
                for _ in range { multiply(iterations) }
            }
        }
        return Double(iterations * threads) * flopsPerIteration / seconds
    }

    /// Seconds of the fastest call in about a third of a second, at least three calls: other programs on the machine only slow
    /// calls down.
    static func fastest(_ body: (Int) throws -> Void) throws -> Double {
        let clock = ContinuousClock()
        let start = clock.now
        var best = Double.infinity
        var calls = 0
        while calls < 3 || clock.now - start < .milliseconds(300) {
            best = min(best, try clock.measure { try body(calls) } / .seconds(1))
            calls += 1
        }
        return best
    }

    private static func share(_ rate: Double, of ceiling: Double, _ unit: String) -> String {
        "\(number(rate / 1e9)) \(unit) (\(Int(100 * rate / ceiling)) %)"
    }

    private static func number(_ value: Double) -> String { String(Double(Int(value * 10)) / 10) }
}

/// A stored form with the way it is multiplied.
private struct TimedFormat {
    let name: String
    let weight: WeightFormat
    var arithmetic = LinearArithmetic()

    private static let nf4 = WeightFormat.fourBit(FourBitFormat(codebook: .nf4))
    private static let nested = WeightFormat.fourBit(FourBitFormat(codebook: .nf4, isNested: true))

    static let all: [TimedFormat] = [
        TimedFormat(name: "float32", weight: .dense(.float32)),
        TimedFormat(name: "bfloat16", weight: .dense(.bfloat16)),
        TimedFormat(name: "float16", weight: .dense(.float16)),
        TimedFormat(name: "nf4 in float32", weight: nf4),
        TimedFormat(name: "nf4 in float16", weight: nf4, arithmetic: LinearArithmetic(computeDType: .float16)),
        TimedFormat(name: "nf4 in bfloat16", weight: nf4, arithmetic: LinearArithmetic(computeDType: .bfloat16)),
        TimedFormat(name: "nf4 nested in bfloat16", weight: nested, arithmetic: LinearArithmetic(computeDType: .bfloat16)),
        TimedFormat(
            name: "nf4, int8 activations", weight: nf4,
            arithmetic: LinearArithmetic(computeDType: .bfloat16, allowsInt8Activations: true)),
        TimedFormat(name: "int8", weight: .int8),
    ]
}

/// Several copies of a weight [N, K], so that they come from memory and not from a cache.
private struct TimedLayer {
    let backend: CPUBackend
    let copies: [LinearGroup]
    /// Bytes of one copy with its scales.
    let byteCount: Int

    init(_ backend: CPUBackend, _ format: TimedFormat, _ outFeatures: Int, _ inFeatures: Int) throws {
        let (spread, maximumCopies) = (256 << 20, 24)
        let source = Tensor.host(
            HostValues.random(outFeatures * inFeatures, seed: 1), .float32, [outFeatures, inFeatures])
        var copies = [LinearGroup]()
        var bytes = 0
        repeat {
            let weight = try backend.prepare(try backend.quantize(source, to: format.weight))
            bytes = weight.byteCount
            copies.append(LinearGroup([Linear(name: format.name, weight: weight, arithmetic: format.arithmetic)]))
        } while copies.count * bytes < spread && copies.count < maximumCopies
        self.backend = backend
        self.copies = copies
        byteCount = bytes
    }

    /// Seconds of one product with [M, K] inputs.
    func seconds(rows: Int) throws -> Double {
        let inFeatures = copies[0].inFeatures
        let input = Tensor.host(HostValues.random(rows * inFeatures, seed: 2), .float32, [rows, inFeatures])
        let output = try backend.allocate(.float32, [rows, copies[0].outFeatures])
        return try LinearBenchmark.fastest { call in
            try backend.linear(input, copies[call % copies.count], epilogue: LinearEpilogue(), into: output)
        }
    }
}
