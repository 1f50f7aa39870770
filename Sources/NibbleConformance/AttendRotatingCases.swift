internal import NibbleCore

/// One way to call `attend(_:rotating:_:into:)`: how the new tokens are rotated and stored, and what they see.
private struct AttendRotatingVariant: Sendable {
    var rotation: RotateVariant
    var softCap: Float?
    var window: Int?
    var bias = AttentionVariant.Bias.none
    var sinks: ClosedRange<Float>?

    /// The attention of it, of which nothing but the heads' sizes is the rotation's.
    var attention: AttentionVariant {
        AttentionVariant(
            heads: rotation.heads, keyValueHeads: rotation.keyValueHeads, keySize: rotation.keySize,
            valueSize: rotation.valueSize,
            softCap: softCap, window: window, bias: bias, sinks: sinks, cache: rotation.cache,
            queryLengths: rotation.queryLengths, lengths: rotation.lengths)
    }
}

extension OperationCases {
    private static let variants: [(String, AttendRotatingVariant)] = [
        ("first token", .init(rotation: .init(lengths: [1]))),
        ("decode", .init(rotation: .init())),
        (
            "ragged rows",
            .init(
                rotation: .init(
                    heads: 8, keyValueHeads: 2, keySize: 128, valueSize: 128, rotated: 128, queryLengths: [1, 1, 0, 1, 1, 1],
                    lengths: [1, 32, 5, 97, 33, 300]))
        ),
        (
            "700 keys, groups of 12",
            .init(rotation: .init(placement: .grouped, heads: 12, keyValueHeads: 1, lengths: [700]))
        ),
        ("part rotated", .init(rotation: .init(keySize: 72, valueSize: 72, rotated: 48, lengths: [40]))),
        (
            "pairs rotated",
            .init(rotation: .init(keySize: 80, valueSize: 80, rotated: 24, isInterleaved: true, lengths: [66]))
        ),
        (
            "rotated parts of odd sizes",
            .init(rotation: .init(placement: .interleaved, heads: 3, keyValueHeads: 3, keySize: 40, valueSize: 40, rotated: 20))
        ),
        (
            "size 256, window 40",
            .init(
                rotation: .init(
                    heads: 8, keyValueHeads: 1, keySize: 256, valueSize: 256, rotated: 256, queryLengths: [1, 1],
                    lengths: [300, 33]), window: 40)
        ),
        (
            "size 512", .init(rotation: .init(heads: 4, keyValueHeads: 2, keySize: 512, valueSize: 512, rotated: 512))
        ),
        (
            "window behind the first split, sinks",
            .init(rotation: .init(heads: 8, keyValueHeads: 1, lengths: [600]), window: 20, sinks: 0...4)
        ),
        ("ALiBi", .init(rotation: .init(placement: .interleaved, keySize: 96, valueSize: 96, rotated: 0), bias: .alibi)),
        (
            "relative bias",
            .init(
                rotation: .init(rotated: 0, lengths: [300]),
                bias: .relative(isBidirectional: false, buckets: 32, maximumDistance: 128))
        ),
        ("soft cap", .init(rotation: .init(), softCap: 2)),
        ("head norm", .init(rotation: .init(keyValueHeads: 2, keySize: 128, valueSize: 128, rotated: 128, scope: .head))),
        (
            "head layer norm, a weight a head",
            .init(rotation: .init(keySize: 80, valueSize: 80, rotated: 32, scope: .head, kind: .layer, hasHeadWeights: true))
        ),
        ("token norm", .init(rotation: .init(scope: .token))),
        ("head norm after rotation", .init(rotation: .init(keyValueHeads: 2, scope: .rotatedHead))),
        ("norm of values", .init(rotation: .init(scope: .head, valueEpsilon: 1e-6))),
        (
            "clip and query temperature",
            .init(rotation: .init(keyValueHeads: 2, clip: 0.75, temperature: .init(beta: 0.3, length: 5)))
        ),
        ("queries of another layer's keys", .init(rotation: .init(keyValueHeads: 2, hasKeysAndValues: false))),
        ("other value size", .init(rotation: .init(heads: 3, keyValueHeads: 1, keySize: 48, valueSize: 20, rotated: 48))),
        ("prompt", .init(rotation: .init(keyValueHeads: 2, queryLengths: [20, 1], lengths: [20, 40]))),
    ]

    package static let attendRotating: [OperationCase] = variants.flatMap { name, variant in
        cacheFormats.map { loadDType, format in
            OperationCase("rotate and attend, \(name), \(format) cache", loadDType: loadDType) {
                var variant = variant
                variant.rotation.cache = format
                return try attendRotating($0, variant)
            }
        }
    }

    private static func attendRotating(
        _ context: OperationContext, _ variant: AttendRotatingVariant
    ) throws -> OperationResult {
        let (rotation, attention) = (variant.rotation, variant.attention)
        let batch = RaggedBatch(queryLengths: rotation.queryLengths, lengths: rotation.lengths)
        let geometry = KeyValueGeometry(
            heads: rotation.keyValueHeads, keySize: rotation.keySize, valueSize: rotation.valueSize, format: rotation.cache)
        var cache = try CacheOperand(context, geometry, blocks: batch.blockCount, seed: 23)
        let projections = try context.random(context.activation, [batch.tokenCount, rotation.width], seed: 25)
        let plain = try PlainRotation(context, rotation, positions: 704)
        let (before, whole) = (cache, try PlainAttention(context, attention, batch, cache))
        let output = try context.output(context.activation, [batch.tokenCount, rotation.heads * rotation.valueSize])
        try context.backend.attend(
            AttentionCall(
                queries: projections.tensor, layout: rotation.layout.query, heads: rotation.heads, cache: cache.cache,
                scale: Float(1 / Double(rotation.keySize).squareRoot()), softCap: variant.softCap, window: variant.window,
                bias: whole.bias, sinks: whole.sinks),
            rotating: RotateAndStoreCall(
                projections: projections.tensor, layout: rotation.layout, heads: rotation.heads, norm: plain.norm,
                rotary: plain.rotary, cache: cache.cache, clip: rotation.clip, temperature: rotation.temperature,
                valueEpsilon: rotation.valueEpsilon, hasKeysAndValues: rotation.hasKeysAndValues),
            try batch.indices(context), into: output)

        let rows = (0..<batch.tokenCount).map { Array(projections.values[$0 * rotation.width..<($0 + 1) * rotation.width]) }
        cache.keys = try cache.held(context, cache.cache.keys, size: geometry.keySize)
        cache.values = try cache.held(context, cache.cache.values, size: geometry.valueSize)
        let seen = try PlainAttention(context, attention, batch, cache)
        var wanted: [Double] = []
        for (token, place) in batch.places.enumerated() {
            for (head, query) in plain.heads(rows[token], .query, position: place.position).enumerated() {
                wanted += seen.output(query, head: head, row: place.row, position: place.position)
            }
        }
        // Queries are rounded before their products, and values of a quantized cache before theirs.
        let steps = if case .quantized = rotation.cache { 8.0 } else { 4.0 }
        return OperationResult(
            got: try context.values(of: output), wanted: wanted, tolerance: context.tolerance(steps: steps)
        ).and(try stored(context, batch, plain, rows, before: before, after: cache))
    }

    /// Compares what the cache holds with the plain keys and values of each token.
    private static func stored(
        _ context: OperationContext, _ batch: RaggedBatch, _ plain: PlainRotation, _ rows: [[Double]], before: CacheOperand,
        after: CacheOperand
    ) throws -> OperationResult {
        let geometry = before.cache.geometry
        var (keys, values) = (before.keys, before.values)
        for (token, place) in batch.places.enumerated() {
            let slot = batch.slot(row: place.row, position: place.position)
            for (head, key) in plain.heads(rows[token], .key, position: place.position).enumerated() {
                let at = CacheOperand.offset(slot, head: head, heads: geometry.heads, size: geometry.keySize)
                keys.replaceSubrange(at..<at + key.count, with: key)
            }
            for (head, value) in plain.heads(rows[token], .value, position: place.position).enumerated() {
                let at = CacheOperand.offset(slot, head: head, heads: geometry.heads, size: geometry.valueSize)
                values.replaceSubrange(at..<at + value.count, with: value)
            }
        }
        let tolerance = max(context.tolerance(steps: 3), OperationContext.tolerance(geometry.dtype))
        return before.compare(
            got: after.keys, wanted: keys, before: before.keys, size: geometry.keySize, tolerance: tolerance
        ).and(
            before.compare(
                got: after.values, wanted: values, before: before.values, size: geometry.valueSize, tolerance: tolerance)
        ).and(
            try before.neighbours(
                context,
                written: plain.variant.hasKeysAndValues
                    ? batch.places.map { batch.slot(row: $0.row, position: $0.position) } : []))
    }
}
