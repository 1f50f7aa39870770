internal import Foundation
internal import NibbleCore

/// One way to call `rotateAndStore`.
struct RotateVariant: Sendable {
    enum Placement: String, Sendable { case stacked, interleaved, grouped }

    var placement = Placement.stacked
    var heads = 4
    var keyValueHeads = 4
    var keySize = 64
    var valueSize = 64
    /// Elements of a head that are rotated; 0 for no rotary embedding.
    var rotated = 64
    var isInterleaved = false
    var scope: QueryKeyNorm.Scope?
    var kind = Norm.Kind.rms
    var hasHeadWeights = false
    var clip: Float?
    var temperature: QueryTemperature?
    var valueEpsilon: Float?
    var hasKeysAndValues = true
    var cache = KeyValueFormat.dense(.float32)
    var queryLengths = [1]
    var lengths = [40]

    var layout: QueryKeyValueLayout {
        switch placement {
        case .stacked where keySize != valueSize:
            QueryKeyValueLayout(
                query: .init(offset: 0, stride: keySize), key: .init(offset: heads * keySize, stride: keySize),
                value: .init(offset: (heads + keyValueHeads) * keySize, stride: valueSize))
        case .stacked: .stacked(heads: heads, keyValueHeads: keyValueHeads, headSize: keySize)
        case .interleaved: .interleaved(headSize: keySize)
        case .grouped: .grouped(heads: heads, keyValueHeads: keyValueHeads, headSize: keySize)
        }
    }

    var width: Int { heads * keySize + (hasKeysAndValues ? keyValueHeads * (keySize + valueSize) : 0) }
}

extension OperationCases {
    private static let rotateVariants: [(String, RotateVariant)] = [
        ("one token", RotateVariant()),
        ("last slot of a block", RotateVariant(lengths: [32])),
        ("slots between other rows' blocks", RotateVariant(queryLengths: [1, 1, 1], lengths: [1, 32, 33])),
        ("ragged rows", RotateVariant(queryLengths: [5, 0, 1, 34], lengths: [5, 7, 70, 100])),
        ("grouped heads", RotateVariant(heads: 6, keyValueHeads: 2, queryLengths: [3, 2], lengths: [33, 64])),
        (
            "interleaved heads, no rotary",
            RotateVariant(placement: .interleaved, heads: 5, keyValueHeads: 5, keySize: 20, valueSize: 20, rotated: 0)
        ),
        (
            "interleaved heads, part rotated",
            RotateVariant(placement: .interleaved, heads: 3, keyValueHeads: 3, keySize: 40, valueSize: 40, rotated: 10)
        ),
        ("groups", RotateVariant(placement: .grouped, heads: 8, keyValueHeads: 2, queryLengths: [3], lengths: [3])),
        ("pairs rotated", RotateVariant(keySize: 80, valueSize: 80, rotated: 32, isInterleaved: true)),
        ("other value size", RotateVariant(heads: 3, keyValueHeads: 1, keySize: 48, valueSize: 20, rotated: 48)),
        ("head norm", RotateVariant(scope: .head, queryLengths: [2], lengths: [2])),
        ("head norm, a weight a head", RotateVariant(scope: .head, kind: .layer, hasHeadWeights: true)),
        ("token norm", RotateVariant(heads: 4, keyValueHeads: 2, scope: .token, queryLengths: [2], lengths: [9])),
        ("token layer norm", RotateVariant(placement: .interleaved, scope: .token, kind: .layer)),
        ("head norm after rotation", RotateVariant(keyValueHeads: 2, scope: .rotatedHead, queryLengths: [2], lengths: [9])),
        ("clipped", RotateVariant(clip: 0.75)),
        ("token norm, clipped", RotateVariant(keyValueHeads: 2, scope: .token, clip: 0.75, queryLengths: [3], lengths: [9])),
        (
            "query temperature",
            RotateVariant(
                keyValueHeads: 2, temperature: .init(beta: 0.3, length: 5), queryLengths: [7, 1], lengths: [7, 40])
        ),
        ("keys and values only", RotateVariant(heads: 0, keyValueHeads: 3, rotated: 0, queryLengths: [6], lengths: [6])),
        (
            "head norm, norm of values",
            RotateVariant(keyValueHeads: 2, scope: .head, valueEpsilon: 1e-6, queryLengths: [5, 1], lengths: [5, 40])
        ),
        (
            "norm of values, clipped",
            RotateVariant(
                heads: 3, keyValueHeads: 1, valueSize: 24, clip: 0.75, valueEpsilon: 0.1, queryLengths: [2], lengths: [9])
        ),
        (
            "queries of another layer's keys",
            RotateVariant(
                keyValueHeads: 2, scope: .head, hasKeysAndValues: false, queryLengths: [7, 1], lengths: [7, 40])
        ),
        (
            "queries of another layer's keys, no norm",
            RotateVariant(keyValueHeads: 2, hasKeysAndValues: false, queryLengths: [7, 1], lengths: [7, 40])
        ),
        (
            "size 512, norm of values",
            RotateVariant(
                heads: 2, keyValueHeads: 1, keySize: 512, valueSize: 512, rotated: 512, scope: .head, valueEpsilon: 1e-6,
                queryLengths: [3, 1], lengths: [3, 33])
        ),
        ("size 256", RotateVariant(heads: 2, keyValueHeads: 1, keySize: 256, valueSize: 256, rotated: 256)),
    ]

    package static let rotateAndStore: [OperationCase] = rotateVariants.flatMap { name, variant in
        rotateFormats.map { loadDType, format in
            OperationCase("rotate and store, \(name), \(format) cache", loadDType: loadDType) {
                var variant = variant
                variant.cache = format
                return try rotateAndStore($0, variant)
            }
        }
    }

    private static let rotateFormats: [(DType, KeyValueFormat)] =
        [(.float32, .dense(.float32)), (.float16, .dense(.float16)), (.bfloat16, .dense(.bfloat16))] + quantizedFormats

    private static func rotateAndStore(_ context: OperationContext, _ variant: RotateVariant) throws -> OperationResult {
        let batch = RaggedBatch(queryLengths: variant.queryLengths, lengths: variant.lengths)
        let geometry = KeyValueGeometry(
            heads: variant.keyValueHeads, keySize: variant.keySize, valueSize: variant.valueSize, format: variant.cache)
        let cache = try CacheOperand(context, geometry, blocks: batch.blockCount, seed: 13)
        let projections = try context.random(context.activation, [batch.tokenCount, variant.width], seed: 15, offset: 0.25)
        let plain = try PlainRotation(context, variant, positions: 128)
        let call = RotateAndStoreCall(
            projections: projections.tensor, layout: variant.layout, heads: variant.heads, norm: plain.norm,
            rotary: plain.rotary, cache: cache.cache, clip: variant.clip, temperature: variant.temperature,
            valueEpsilon: variant.valueEpsilon, hasKeysAndValues: variant.hasKeysAndValues)
        try context.backend.rotateAndStore(call, try batch.indices(context))

        let got = try context.values(of: projections.tensor)
        var keys = cache.keys
        var values = cache.values
        var gotQueries: [Double] = []
        var queries: [Double] = []
        for (token, place) in batch.places.enumerated() {
            let row = Array(projections.values[token * variant.width..<(token + 1) * variant.width])
            let slot = batch.slot(row: place.row, position: place.position)
            queries += plain.heads(row, .query, position: place.position).flatMap { $0 }
            for head in 0..<variant.heads {
                let at = token * variant.width + PlainRotation.start(variant.layout.query, head, variant.keySize)
                gotQueries += got[at..<at + variant.keySize]
            }
            for (head, key) in plain.heads(row, .key, position: place.position).enumerated() {
                let at = CacheOperand.offset(slot, head: head, heads: geometry.heads, size: geometry.keySize)
                keys.replaceSubrange(at..<at + key.count, with: key)
            }
            for (head, value) in plain.heads(row, .value, position: place.position).enumerated() {
                let at = CacheOperand.offset(slot, head: head, heads: geometry.heads, size: geometry.valueSize)
                values.replaceSubrange(at..<at + value.count, with: value)
            }
        }
        let tolerance = context.tolerance(steps: 3)
        let stored = max(tolerance, OperationContext.tolerance(geometry.dtype))
        func compare(_ tensor: Tensor, _ wanted: [Double], before: [Double], size: Int) throws -> OperationResult {
            cache.compare(
                got: try cache.held(context, tensor, size: size), wanted: wanted, before: before, size: size, tolerance: stored)
        }
        return OperationResult(got: gotQueries, wanted: queries, tolerance: tolerance)
            .and(try compare(cache.cache.keys, keys, before: cache.keys, size: geometry.keySize))
            .and(try compare(cache.cache.values, values, before: cache.values, size: geometry.valueSize))
            .and(
                try cache.neighbours(
                    context,
                    written: variant.hasKeysAndValues
                        ? batch.places.map { batch.slot(row: $0.row, position: $0.position) } : []))
    }
}

/// The plain form of what happens to the heads of one token's projections.
struct PlainRotation {
    enum Role { case query, key, value }

    let variant: RotateVariant
    let norm: QueryKeyNorm?
    let rotary: RotaryTable?
    private let weights: [Role: [Double]]
    private let cosines: [Double]
    private let sines: [Double]

    init(_ context: OperationContext, _ variant: RotateVariant, positions: Int) throws {
        self.variant = variant
        func weight(_ heads: Int, seed: UInt64) throws -> OperationContext.Operand {
            let perHead = variant.scope == .token || variant.hasHeadWeights
            return try context.random(.float32, [(perHead ? max(heads, 1) : 1) * variant.keySize], seed: seed, offset: 1)
        }
        let query = try weight(variant.heads, seed: 16)
        let key = try weight(variant.keyValueHeads, seed: 17)
        weights = [.query: query.values, .key: key.values]
        norm = variant.scope.map {
            QueryKeyNorm(
                scope: $0, query: Norm(kind: variant.kind, epsilon: 1e-6, weight: query.tensor),
                key: Norm(kind: variant.kind, epsilon: 1e-6, weight: key.tensor))
        }
        let half = variant.rotated / 2
        let angles = (0..<positions * half).map { index in
            Double(index / half) * pow(10000, -Double(index % half) / Double(half))
        }
        let cosines = try context.operand(angles.map { Float(cos($0)) }, .float32, [positions, half])
        let sines = try context.operand(angles.map { Float(sin($0)) }, .float32, [positions, half])
        self.cosines = cosines.values
        self.sines = sines.values
        rotary =
            half == 0
            ? nil
            : RotaryTable(
                cosines: cosines.tensor, sines: sines.tensor, rotated: variant.rotated, isInterleaved: variant.isInterleaved)
    }

    static func start(_ part: QueryKeyValueLayout.HeadOffsets, _ head: Int, _ size: Int) -> Int {
        part.offset + head / part.groupSize * part.stride + head % part.groupSize * size
    }

    func heads(_ row: [Double], _ role: Role, position: Int) -> [[Double]] {
        let layout = variant.layout
        let stored = variant.hasKeysAndValues ? variant.keyValueHeads : 0
        let (part, count) =
            switch role {
            case .query: (layout.query, variant.heads)
            case .key: (layout.key, stored)
            case .value: (layout.value, stored)
            }
        let size = role == .value ? variant.valueSize : variant.keySize
        var heads = (0..<count).map { head in
            let start = PlainRotation.start(part, head, size)
            return Array(row[start..<start + size])
        }
        guard role != .value, count > 0 else { return heads.map { clipped(normalizedValue($0)) } }
        let followsRotation = variant.scope == .rotatedHead
        if !followsRotation { heads = normalized(heads, weights[role] ?? []) }
        heads = heads.map { rotated(clipped($0), position) }
        if followsRotation { heads = normalized(heads, weights[role] ?? []) }
        guard role == .query, let temperature = variant.temperature else { return heads }
        let factor = 1 + Double(temperature.beta) * log(1 + Double(position / temperature.length))
        return heads.map { $0.map { $0 * factor } }
    }

    private func normalizedValue(_ head: [Double]) -> [Double] {
        guard let epsilon = variant.valueEpsilon else { return head }
        let ones = Array(repeating: 1.0, count: head.count)
        return PlainNorm.value(.rms, epsilon: epsilon, head, weight: ones, bias: nil)
    }

    private func clipped(_ head: [Double]) -> [Double] {
        guard let clip = variant.clip.map(Double.init) else { return head }
        return head.map { min(max($0, -clip), clip) }
    }

    private func normalized(_ heads: [[Double]], _ weight: [Double]) -> [[Double]] {
        let size = variant.keySize
        switch variant.scope {
        case nil: return heads
        case .head?, .rotatedHead?:
            return heads.enumerated().map { head, x in
                let start = weight.count > size ? head * size : 0
                return PlainNorm.value(
                    variant.kind, epsilon: 1e-6, x, weight: Array(weight[start..<start + size]), bias: nil)
            }
        case .token?:
            let all = PlainNorm.value(
                variant.kind, epsilon: 1e-6, heads.flatMap { $0 }, weight: weight, bias: nil)
            return heads.indices.map { Array(all[$0 * size..<($0 + 1) * size]) }
        }
    }

    private func rotated(_ x: [Double], _ position: Int) -> [Double] {
        var out = x
        let half = variant.rotated / 2
        for index in 0..<half {
            let (first, second) = variant.isInterleaved ? (2 * index, 2 * index + 1) : (index, index + half)
            let (cosine, sine) = (cosines[position * half + index], sines[position * half + index])
            out[first] = x[first] * cosine - x[second] * sine
            out[second] = x[second] * cosine + x[first] * sine
        }
        return out
    }
}
