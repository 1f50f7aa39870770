internal import Foundation
internal import NibbleCore

/// One way to call `attend`.
struct AttentionVariant: Sendable {
    enum Bias: Sendable {
        case none, alibi
        case relative(isBidirectional: Bool, buckets: Int, maximumDistance: Int)
    }

    var heads = 4
    var keyValueHeads = 4
    var keySize = 64
    var valueSize = 64
    var softCap: Float?
    var window: Int?
    var isCausal = true
    var bias = Bias.none
    var isInterleaved = false
    /// The range of the heads' sinks.
    var sinks: ClosedRange<Float>?
    var cache = KeyValueFormat.dense(.float32)
    var queryLengths = [1]
    var lengths = [50]
}

extension OperationCases {
    private static let attentionVariants: [(String, AttentionVariant)] = [
        ("first token", AttentionVariant(lengths: [1])),
        ("decode", AttentionVariant()),
        ("decode, ragged rows", AttentionVariant(queryLengths: [1, 1, 0, 1], lengths: [1, 32, 5, 97])),
        ("decode, 700 keys, one head", AttentionVariant(heads: 1, keyValueHeads: 1, lengths: [700])),
        ("decode, groups of 2", AttentionVariant(heads: 6, keyValueHeads: 3, lengths: [70])),
        ("decode, groups of 3", AttentionVariant(heads: 9, keyValueHeads: 3, keySize: 32, valueSize: 32, lengths: [70])),
        ("decode, groups of 7", AttentionVariant(heads: 14, keyValueHeads: 2, lengths: [70])),
        ("decode, one key head for 71", AttentionVariant(heads: 71, keyValueHeads: 1, lengths: [40])),
        ("decode, size 20", AttentionVariant(heads: 3, keyValueHeads: 3, keySize: 20, valueSize: 20, lengths: [33])),
        ("decode, size 256", AttentionVariant(heads: 2, keyValueHeads: 1, keySize: 256, valueSize: 256, lengths: [40])),
        ("decode, size 512", AttentionVariant(heads: 8, keyValueHeads: 2, keySize: 512, valueSize: 512, lengths: [700])),
        (
            "decode, size 512, ragged rows",
            AttentionVariant(
                heads: 3, keyValueHeads: 3, keySize: 512, valueSize: 512, queryLengths: [1, 0, 1], lengths: [33, 5, 270])
        ),
        (
            "decode, size 512, one key head, window 40",
            AttentionVariant(heads: 8, keyValueHeads: 1, keySize: 512, valueSize: 512, window: 40, lengths: [90])
        ),
        (
            "prompt, size 512",
            AttentionVariant(heads: 4, keyValueHeads: 1, keySize: 512, valueSize: 512, queryLengths: [70, 3], lengths: [70, 41])
        ),
        (
            "prompt, size 256, window 9",
            AttentionVariant(
                heads: 4, keyValueHeads: 2, keySize: 256, valueSize: 256, window: 9, queryLengths: [60], lengths: [70])
        ),
        ("decode, keys 320 values 24", AttentionVariant(heads: 2, keyValueHeads: 2, keySize: 320, valueSize: 24)),
        ("decode, size 1", AttentionVariant(heads: 2, keyValueHeads: 2, keySize: 1, valueSize: 1)),
        ("decode, window 16", AttentionVariant(window: 16, lengths: [90])),
        ("decode, soft cap", AttentionVariant(softCap: 2)),
        ("decode, ALiBi", AttentionVariant(bias: .alibi, isInterleaved: true)),
        (
            "decode, relative bias",
            AttentionVariant(bias: .relative(isBidirectional: false, buckets: 32, maximumDistance: 128), lengths: [300])
        ),
        ("prompt", AttentionVariant(queryLengths: [50])),
        (
            "ragged prompts with earlier keys",
            AttentionVariant(heads: 6, keyValueHeads: 2, queryLengths: [40, 1, 7], lengths: [40, 80, 71])
        ),
        ("prompt, window 8", AttentionVariant(window: 8, queryLengths: [60], lengths: [60])),
        ("prompt, size 40", AttentionVariant(heads: 3, keyValueHeads: 1, keySize: 40, valueSize: 40, queryLengths: [37])),
        ("prompt, soft cap and window", AttentionVariant(softCap: 3, window: 33, queryLengths: [90], lengths: [100])),
        ("prompt, ALiBi", AttentionVariant(bias: .alibi, isInterleaved: true, queryLengths: [45], lengths: [45])),
        (
            "encoder, relative bias",
            AttentionVariant(
                isCausal: false, bias: .relative(isBidirectional: true, buckets: 32, maximumDistance: 128),
                queryLengths: [180, 3], lengths: [180, 3])
        ),
        (
            "relative bias, odd buckets",
            AttentionVariant(
                isCausal: false, bias: .relative(isBidirectional: true, buckets: 14, maximumDistance: 20), queryLengths: [50])
        ),
        ("cross attention", AttentionVariant(isCausal: false, queryLengths: [3, 2], lengths: [65, 31])),
        ("prompt of many rows", AttentionVariant(heads: 1, keyValueHeads: 1, queryLengths: [200], lengths: [200])),
    ]

    private static let sinkVariants: [(String, AttentionVariant)] = [
        ("first token, sinks", AttentionVariant(sinks: -2...3, lengths: [1])),
        ("decode, sinks", AttentionVariant(sinks: -4...6, queryLengths: [1, 1, 0, 1], lengths: [1, 32, 5, 97])),
        ("decode, 700 keys, sinks", AttentionVariant(heads: 8, keyValueHeads: 1, sinks: -3...9, lengths: [700])),
        (
            "decode, groups of 8, window 128, sinks",
            AttentionVariant(heads: 16, keyValueHeads: 2, window: 128, sinks: -5...5, lengths: [300])
        ),
        ("decode, window behind the first split, sinks", AttentionVariant(window: 20, sinks: 0...4, lengths: [600])),
        (
            "decode, size 20, sinks",
            AttentionVariant(heads: 3, keyValueHeads: 3, keySize: 20, valueSize: 20, sinks: -1...1, lengths: [33])
        ),
        (
            "decode, keys 320 values 24, sinks",
            AttentionVariant(heads: 2, keyValueHeads: 2, keySize: 320, valueSize: 24, sinks: 0...2)
        ),
        ("decode, soft cap, sinks", AttentionVariant(softCap: 2, sinks: -2...2)),
        ("prompt, sinks", AttentionVariant(sinks: -3...8, queryLengths: [50])),
        (
            "ragged prompts with earlier keys, window 16, sinks",
            AttentionVariant(
                heads: 6, keyValueHeads: 2, window: 16, sinks: -4...4, queryLengths: [40, 1, 7], lengths: [40, 80, 71])
        ),
        (
            "prompt, size 40, sinks",
            AttentionVariant(heads: 3, keyValueHeads: 1, keySize: 40, valueSize: 40, sinks: 0...5, queryLengths: [37])
        ),
        ("prompt, ALiBi, sinks", AttentionVariant(bias: .alibi, sinks: -2...2, queryLengths: [45], lengths: [45])),
        ("decode, sinks that outweigh all keys", AttentionVariant(sinks: 5...8, lengths: [40])),
        ("prompt, sinks that outweigh all keys", AttentionVariant(sinks: 5...8, queryLengths: [40], lengths: [40])),
        ("decode, sinks that weigh nothing", AttentionVariant(sinks: -200 ... -100, lengths: [40])),
        ("prompt, sinks that weigh nothing", AttentionVariant(sinks: -200 ... -100, queryLengths: [40], lengths: [40])),
    ]

    /// Long enough for kernels that take many queries of a row at once, for dense caches.
    private static let longVariants: [(String, AttentionVariant)] = [
        (
            "long ragged prompts, size 128",
            AttentionVariant(
                heads: 2, keyValueHeads: 1, keySize: 128, valueSize: 128, queryLengths: [210, 1, 0, 65],
                lengths: [210, 40, 7, 201])
        ),
        (
            "long prompt behind others, groups of 2",
            AttentionVariant(heads: 2, keyValueHeads: 1, queryLengths: [230], lengths: [301])
        ),
        (
            "long prompt, window 40, size 128, sinks",
            AttentionVariant(
                heads: 1, keyValueHeads: 1, keySize: 128, valueSize: 128, window: 40, sinks: -3...8, queryLengths: [200],
                lengths: [333])
        ),
        (
            "long prompt, soft cap and window 150",
            AttentionVariant(heads: 1, keyValueHeads: 1, softCap: 3, window: 150, queryLengths: [200], lengths: [290])
        ),
        (
            "long prompt, ALiBi",
            AttentionVariant(heads: 2, keyValueHeads: 2, bias: .alibi, isInterleaved: true, queryLengths: [195], lengths: [195])
        ),
        (
            "long input, not causal",
            AttentionVariant(heads: 1, keyValueHeads: 1, isCausal: false, queryLengths: [193], lengths: [193])
        ),
    ]

    package static let attention: [OperationCase] =
        attend(attentionVariants + sinkVariants, cacheFormats) + attend(longVariants, denseFormats)

    private static func attend(
        _ variants: [(String, AttentionVariant)], _ formats: [(DType, KeyValueFormat)]
    ) -> [OperationCase] {
        variants.flatMap { name, variant in
            formats.map { loadDType, format in
                OperationCase("attend, \(name), \(format) cache", loadDType: loadDType) {
                    var variant = variant
                    variant.cache = format
                    return try attend($0, variant)
                }
            }
        }
    }

    private static let denseFormats: [(DType, KeyValueFormat)] = [
        (.float32, .dense(.float32)), (.float32, .dense(.float16)), (.float32, .dense(.bfloat16)),
        (.float16, .dense(.float16)), (.bfloat16, .dense(.bfloat16)),
    ]

    /// Load dtypes, each with a cache format.
    static let cacheFormats = denseFormats + quantizedFormats

    /// Load dtypes, each with a quantized cache format.
    static let quantizedFormats: [(DType, KeyValueFormat)] = {
        let choices: [(DType, Int, Int)] = [
            (.float32, 8, 64), (.float32, 4, 32), (.float32, 2, 16), (.float16, 8, 64), (.float16, 2, 64), (.bfloat16, 4, 64),
        ]
        return choices.compactMap { dtype, bits, group in
            KeyValueQuantization(bits: bits, groupSize: group).map { (dtype, .quantized($0)) }
        }
    }()

    private static func attend(_ context: OperationContext, _ variant: AttentionVariant) throws -> OperationResult {
        let batch = RaggedBatch(queryLengths: variant.queryLengths, lengths: variant.lengths)
        let geometry = KeyValueGeometry(
            heads: variant.keyValueHeads, keySize: variant.keySize, valueSize: variant.valueSize, format: variant.cache)
        let cache = try CacheOperand(context, geometry, blocks: batch.blockCount, seed: 18)
        let part =
            variant.isInterleaved
            ? QueryKeyValueLayout.interleaved(headSize: variant.keySize).query
            : QueryKeyValueLayout.HeadOffsets(offset: 3, stride: variant.keySize)
        let width = variant.isInterleaved ? 3 * variant.heads * variant.keySize : variant.heads * variant.keySize + 5
        let queries = try context.random(context.activation, [batch.tokenCount, width], seed: 20, scale: 1.5)
        let plain = try PlainAttention(context, variant, batch, cache)
        let call = AttentionCall(
            queries: queries.tensor, layout: part, heads: variant.heads, cache: cache.cache,
            scale: Float(1 / Double(variant.keySize).squareRoot()), softCap: variant.softCap, window: variant.window,
            isCausal: variant.isCausal, bias: plain.bias, sinks: plain.sinks)
        let output = try context.output(context.activation, [batch.tokenCount, variant.heads * variant.valueSize])
        try context.backend.attend(call, try batch.indices(context), into: output)
        var wanted: [Double] = []
        for (token, place) in batch.places.enumerated() {
            for head in 0..<variant.heads {
                let start = token * width + PlainRotation.start(part, head, variant.keySize)
                let query = Array(queries.values[start..<start + variant.keySize])
                wanted += plain.output(query, head: head, row: place.row, position: place.position)
            }
        }
        // Values of a quantized cache are rounded to the activations' dtype before they are multiplied.
        let steps = if case .quantized = variant.cache { 6.0 } else { 2.0 }
        return OperationResult(got: try context.values(of: output), wanted: wanted, tolerance: context.tolerance(steps: steps))
            .and(try cache.neighbours(context, written: []))
    }
}

/// The plain form of attention: one query at a time, all scores first.
struct PlainAttention {
    let variant: AttentionVariant
    let batch: RaggedBatch
    let cache: CacheOperand
    let bias: PositionBias
    let sinks: Tensor?
    private let biasValues: [Double]
    private let sinkValues: [Double]

    init(_ context: OperationContext, _ variant: AttentionVariant, _ batch: RaggedBatch, _ cache: CacheOperand) throws {
        self.variant = variant
        self.batch = batch
        self.cache = cache
        let sinks = try variant.sinks.map { range in
            // From one end of the range to the other, head by head.
            try context.operand(
                (0..<variant.heads).map {
                    range.lowerBound + (range.upperBound - range.lowerBound) * Float($0) / Float(max(variant.heads - 1, 1))
                }, .float32, [variant.heads])
        }
        self.sinks = sinks?.tensor
        sinkValues = sinks?.values ?? []
        switch variant.bias {
        case .none:
            bias = .none
            biasValues = []
        case .alibi:
            let slopes = try context.operand(
                (1...variant.heads).map { Float(pow(2, -8 * Double($0) / Double(variant.heads))) }, .float32, [variant.heads])
            bias = .alibi(slopes: slopes.tensor)
            biasValues = slopes.values
        case .relative(let isBidirectional, let buckets, let maximumDistance):
            let table = try context.random(.float32, [buckets, variant.heads], seed: 21, scale: 2)
            bias = .relative(table: table.tensor, isBidirectional: isBidirectional, maximumDistance: maximumDistance)
            biasValues = table.values
        }
    }

    func output(_ query: [Double], head: Int, row: Int, position: Int) -> [Double] {
        let keyHead = head / (variant.heads / variant.keyValueHeads)
        let visible = (0..<batch.lengths[row]).filter { key in
            (!variant.isCausal || key <= position) && (variant.window.map { position - key < $0 } ?? true)
        }
        let scores = visible.map { key in
            let start = offset(row, key, keyHead, variant.keySize)
            var score = query.indices.reduce(0) { $0 + query[$1] * cache.keys[start + $1] }
            score *= Double(Float(1 / Double(variant.keySize).squareRoot()))
            if let cap = variant.softCap { score = Double(cap) * tanh(score / Double(cap)) }
            return score + added(head: head, relative: key - position)
        }
        let sink = sinkValues.isEmpty ? -Double.infinity : sinkValues[head]
        let best = max(scores.max() ?? 0, sink)
        let weights = scores.map { exp($0 - best) }
        let total = weights.reduce(exp(sink - best), +)
        var out = [Double](repeating: 0, count: variant.valueSize)
        for (key, weight) in zip(visible, weights) {
            let start = offset(row, key, keyHead, variant.valueSize)
            for index in out.indices { out[index] += weight / total * cache.values[start + index] }
        }
        return out
    }

    private func offset(_ row: Int, _ key: Int, _ head: Int, _ size: Int) -> Int {
        CacheOperand.offset(batch.slot(row: row, position: key), head: head, heads: variant.keyValueHeads, size: size)
    }

    private func added(head: Int, relative: Int) -> Double {
        switch variant.bias {
        case .none: return 0
        case .alibi: return biasValues[head] * Double(relative)
        case .relative(let isBidirectional, let buckets, let maximumDistance):
            let bucket = PlainAttention.bucket(relative, isBidirectional, buckets, maximumDistance)
            return biasValues[bucket * variant.heads + head]
        }
    }

    /// T5's bucket. The logarithm is float32's by definition.
    static func bucket(_ relative: Int, _ isBidirectional: Bool, _ buckets: Int, _ maximumDistance: Int) -> Int {
        let count = isBidirectional ? buckets / 2 : buckets
        let offset = isBidirectional && relative > 0 ? count : 0
        let distance = isBidirectional ? abs(relative) : max(-relative, 0)
        let exact = count / 2
        if distance < exact { return offset + distance }
        let width = Float(log(Double(maximumDistance) / Double(exact)))
        let place = log(Float(distance) / Float(exact)) / width * Float(count - exact)
        return offset + min(count - 1, exact + Int(place))
    }
}
