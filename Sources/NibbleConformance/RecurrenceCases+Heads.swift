internal import Foundation
internal import NibbleCore

// MARK: - The gated delta rule

struct DeltaVariant: Sendable {
    var keyHeads = 2
    var valueHeads = 4
    var keySize = 64
    var valueSize = 64

    var description: String { "\(keyHeads) × \(keySize), \(valueHeads) × \(valueSize)" }
    var mixedWidth: Int { 2 * keyHeads * keySize + valueHeads * valueSize }
}

extension OperationCases {
    static let deltas: [OperationCase] = {
        let variants = [
            DeltaVariant(), DeltaVariant(keyHeads: 1, valueHeads: 2, keySize: 128, valueSize: 128),
            DeltaVariant(keyHeads: 1, valueHeads: 3, keySize: 16, valueSize: 20),
            DeltaVariant(keyHeads: 2, valueHeads: 2, keySize: 37, valueSize: 45),
            DeltaVariant(keyHeads: 1, valueHeads: 1, keySize: 256, valueSize: 64),
        ]
        return loadDTypes.flatMap { loadDType in
            variants.enumerated().flatMap { index, variant in
                RecurrentCalls.suitable(loadDType, index).map { calls in
                    OperationCase("gatedDelta \(variant.description), \(calls.name)", loadDType: loadDType) {
                        try delta($0, variant, calls)
                    }
                }
            }
        }
    }()

    private static func delta(
        _ context: OperationContext, _ variant: DeltaVariant, _ calls: RecurrentCalls
    ) throws -> OperationResult {
        let (heads, keys, values) = (variant.valueHeads, variant.keySize, variant.valueSize)
        var state = try RecurrentOperand(context, calls, entry: [heads, keys, values], seed: 100)
        let inputs = try context.random(.float32, [2, 3, 3], seed: 101)
        // Rates of 1 to 16, as models begin with.
        let rate = try context.random(.float32, [heads], seed: 102, scale: 0.8, offset: 1.4)
        let timeBias = try context.random(.float32, [heads], seed: 103, offset: -3)
        var result = OperationResult(got: [Int](), exactly: [])
        for (index, batch) in calls.batches.enumerated() {
            let seed = 104 + 3 * UInt64(index)
            let mixed = try context.random(context.activation, [batch.tokenCount, variant.mixedWidth], seed: seed)
            let gates = try context.random(context.activation, [batch.tokenCount, 2 * heads + 3], seed: seed + 1)
            let call = GatedDeltaCall(
                mixed: mixed.tensor, a: Columns(gates.tensor, first: heads + 2), b: Columns(gates.tensor, first: 1),
                rate: rate.tensor, timeBias: timeBias.tensor, keyHeads: variant.keyHeads, valueHeads: heads, keySize: keys,
                valueSize: values, state: RecurrentState(inputs: inputs.tensor, matrix: state.tensor))
            let output = try context.output(context.activation, [batch.tokenCount, heads * values])
            try context.backend.gatedDelta(call, try batch.indices(context), into: output)
            let plain = PlainDelta(
                variant: variant, mixed: PlainColumns(values: mixed.values, width: variant.mixedWidth),
                a: PlainColumns(values: gates.values, width: 2 * heads + 3, first: heads + 2),
                b: PlainColumns(values: gates.values, width: 2 * heads + 3, first: 1), rate: rate.values,
                timeBias: timeBias.values)
            var wanted: [Double] = []
            state.plain.forEachRow(of: batch) { wanted += plain.outputs(tokens: $0, state: &$1) }
            result = result.and(
                OperationResult(
                    got: try context.values(of: output), wanted: wanted, tolerance: recurrentTolerance(context)))
        }
        return result.and(try state.result(context))
    }
}

private struct PlainDelta {
    let variant: DeltaVariant
    let mixed, a, b: PlainColumns
    let rate, timeBias: [Double]

    func outputs(tokens: Range<Int>, state: inout [Double]) -> [Double] {
        let (keys, values) = (variant.keySize, variant.valueSize)
        return tokens.flatMap { token in
            (0..<variant.valueHeads).flatMap { head in
                let keyHead = head / (variant.valueHeads / variant.keyHeads)
                let query = PlainRecurrence.unit(mixed.run(token, keyHead * keys, keys)).map { $0 / Double(keys).squareRoot() }
                let key = PlainRecurrence.unit(mixed.run(token, (variant.keyHeads + keyHead) * keys, keys))
                let value = mixed.run(token, 2 * variant.keyHeads * keys + head * values, values)
                let g = -exp(rate[head]) * PlainRecurrence.softplus(a.at(token, head) + timeBias[head])
                return PlainRecurrence.delta(
                    state: &state[head * keys * values..<(head + 1) * keys * values], query: query, key: key, value: value,
                    decay: exp(g), beta: 1 / (1 + exp(-b.at(token, head))))
            }
        }
    }
}

// MARK: - Mamba 2

struct ScanVariant: Sendable {
    var heads = 4
    var headSize = 64
    var groups = 2
    var stateSize = 128
    var timeLimits: ClosedRange<Float> = 0...Float.infinity
    var timeScale: Float = 1

    var description: String {
        "\(heads) × \(headSize), \(groups) × \(stateSize)" + (timeLimits.upperBound.isFinite ? ", limited" : "")
    }
    var mixedWidth: Int { heads * headSize + 2 * groups * stateSize }
}

extension OperationCases {
    static let scans: [OperationCase] = {
        let variants = [
            ScanVariant(headSize: 32, stateSize: 64), ScanVariant(heads: 2, groups: 1),
            ScanVariant(heads: 2, groups: 1, stateSize: 256),
            ScanVariant(heads: 6, headSize: 20, groups: 3, stateSize: 16, timeLimits: 0.01...0.1, timeScale: 1.25),
            ScanVariant(heads: 2, headSize: 7, groups: 1, stateSize: 37),
            ScanVariant(heads: 1, headSize: 128, groups: 1, stateSize: 32),
        ]
        return loadDTypes.flatMap { loadDType in
            variants.enumerated().flatMap { index, variant in
                RecurrentCalls.suitable(loadDType, index).map { calls in
                    OperationCase("stateSpace \(variant.description), \(calls.name)", loadDType: loadDType) {
                        try scan($0, variant, calls)
                    }
                }
            }
        }
    }()

    private static func scan(
        _ context: OperationContext, _ variant: ScanVariant, _ calls: RecurrentCalls
    ) throws -> OperationResult {
        let (heads, size) = (variant.heads, variant.headSize)
        var state = try RecurrentOperand(context, calls, entry: [heads, size, variant.stateSize], seed: 120)
        let inputs = try context.random(.float32, [2, 3, 3], seed: 121)
        let rate = try context.random(.float32, [heads], seed: 122, scale: 0.8, offset: 1.4)
        let timeBias = try context.random(.float32, [heads], seed: 123, offset: -3)
        let skip = try context.random(.float32, [heads], seed: 124)
        var result = OperationResult(got: [Int](), exactly: [])
        for (index, batch) in calls.batches.enumerated() {
            let seed = 125 + 3 * UInt64(index)
            let mixed = try context.random(context.activation, [batch.tokenCount, variant.mixedWidth], seed: seed)
            let dt = try context.random(context.activation, [batch.tokenCount, heads + 3], seed: seed + 1)
            let call = StateSpaceCall(
                mixed: mixed.tensor, dt: Columns(dt.tensor, first: 2), rate: rate.tensor, timeBias: timeBias.tensor,
                skip: skip.tensor, heads: heads, headSize: size, groups: variant.groups, stateSize: variant.stateSize,
                timeLimits: variant.timeLimits, timeScale: variant.timeScale,
                state: RecurrentState(inputs: inputs.tensor, matrix: state.tensor))
            let output = try context.output(context.activation, [batch.tokenCount, heads * size])
            try context.backend.stateSpace(call, try batch.indices(context), into: output)
            let plain = PlainScan(
                variant: variant, mixed: PlainColumns(values: mixed.values, width: variant.mixedWidth),
                dt: PlainColumns(values: dt.values, width: heads + 3, first: 2), rate: rate.values, timeBias: timeBias.values,
                skip: skip.values)
            var wanted: [Double] = []
            state.plain.forEachRow(of: batch) { wanted += plain.outputs(tokens: $0, state: &$1) }
            result = result.and(
                OperationResult(
                    got: try context.values(of: output), wanted: wanted, tolerance: recurrentTolerance(context)))
        }
        return result.and(try state.result(context))
    }
}

private struct PlainScan {
    let variant: ScanVariant
    let mixed, dt: PlainColumns
    let rate, timeBias, skip: [Double]

    func outputs(tokens: Range<Int>, state: inout [Double]) -> [Double] {
        let (size, states, inner) = (variant.headSize, variant.stateSize, variant.heads * variant.headSize)
        return tokens.flatMap { token in
            (0..<variant.heads).flatMap { head in
                let group = head / (variant.heads / variant.groups)
                let time = PlainRecurrence.softplus(Double(variant.timeScale) * dt.at(token, head) + timeBias[head])
                let limited = min(max(time, Double(variant.timeLimits.lowerBound)), Double(variant.timeLimits.upperBound))
                return PlainRecurrence.scan(
                    state: &state[head * size * states..<(head + 1) * size * states], x: mixed.run(token, head * size, size),
                    b: mixed.run(token, inner + group * states, states),
                    c: mixed.run(token, inner + (variant.groups + group) * states, states),
                    decay: exp(-exp(rate[head]) * limited), dt: limited, skip: skip[head])
            }
        }
    }
}
