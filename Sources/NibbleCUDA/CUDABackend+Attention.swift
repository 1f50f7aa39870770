internal import CNibbleCUDA
public import NibbleCore

extension CUDABackend {
    public func rotateAndStore(_ call: RotateAndStoreCall, _ batch: BatchIndices) throws {
        try perform {
            let element = try element(call.projections.dtype, for: "rotary embedding")
            let geometry = call.cache.geometry
            var arguments = NibbleRotateArguments()
            arguments.projections = call.projections.pointer
            arguments.keys = call.cache.keys.pointer
            arguments.values = call.cache.values.pointer
            arguments.batch = NibbleBatch(batch)
            arguments.query = NibbleHeads(call.layout.query, heads: call.heads)
            arguments.key = NibbleHeads(call.layout.key, heads: geometry.heads)
            arguments.value = NibbleHeads(call.layout.value, heads: geometry.heads)
            arguments.width = Int64(call.projections.shape.last)
            arguments.keySize = Int32(geometry.keySize)
            arguments.valueSize = Int32(geometry.valueSize)
            arguments.cacheType = geometry.dtype.code
            arguments.clip = call.clip ?? 0
            if let rotary = call.rotary { arguments.set(rotary) }
            if let norm = call.norm { arguments.set(norm) }
            let spansToken = arguments.normScope == 2
            let grid = Grid(x: batch.tokenCount, y: spansToken ? 3 : call.heads + 2 * geometry.heads)
            try launch(.rotate, element, grid: grid, block: spansToken ? 256 : 64, arguments)
        }
    }

    public func attend(_ call: AttentionCall, _ batch: BatchIndices, into output: Tensor) throws {
        try perform {
            let element = try element(call.queries.dtype, for: "attention")
            var arguments = NibbleAttentionArguments(call, batch, output)
            let (keySize, valueSize) = (arguments.keySize, arguments.valueSize)
            let isNative = call.cache.geometry.dtype == call.queries.dtype
            let (tokens, heads) = (batch.tokenCount, call.heads)

            if isNative, batch.maximumQueryLength == 1, nibble_split_supports(keySize, valueSize) != 0 {
                let splits = max(blocks(batch.maximumLength, per: NIBBLE_SPLIT_LENGTH), 1)
                arguments.splitLength = NIBBLE_SPLIT_LENGTH
                arguments.splits = Int32(splits)
                arguments.partials = UInt64(try workspace.take(tokens * heads * splits * (Int(valueSize) + 2) * 4))
                try launch(
                    .attendSplit, element, grid: Grid(x: tokens, y: call.cache.geometry.heads, z: splits),
                    block: Int(NIBBLE_SPLIT_THREADS), shared: Int(nibble_split_shared(keySize, valueSize)), arguments)
                return try launch(.attendCombine, element, grid: Grid(x: tokens, y: heads), block: 128, arguments)
            }
            if isNative, batch.maximumQueryLength > 1, nibble_prefill_supports(keySize, valueSize) != 0 {
                let tiles = blocks(batch.maximumQueryLength, per: NIBBLE_PREFILL_QUERIES)
                return try launch(
                    .attendPrefill, element, grid: Grid(x: tiles, y: heads, z: batch.rowCount),
                    block: Int(NIBBLE_PREFILL_THREADS), shared: Int(nibble_prefill_shared(keySize, valueSize)), arguments)
            }
            try launch(
                .attend, element, grid: Grid(x: tokens, y: heads), block: 128,
                shared: Int(nibble_attend_shared(keySize, valueSize)), arguments)
        }
    }

    public func copyBlocks(_ cache: KeyValueCache, pairs: Tensor) throws {
        try perform {
            let blockCount = max(cache.keys.shape[0], 1)
            let arguments = NibbleCopyBlocksArguments(
                keys: cache.keys.pointer, values: cache.values.pointer, pairs: pairs.pointer,
                keyBytes: Int64(cache.keys.byteCount / blockCount), valueBytes: Int64(cache.values.byteCount / blockCount),
                count: Int32(pairs.count / 2), unused: 0)
            try launch(.copyBlocks, grid: Grid(x: pairs.count / 2, y: 16), block: 256, arguments)
        }
    }
}

extension NibbleBatch {
    init(_ batch: BatchIndices) {
        self.init(
            tokens: batch.tokens.pointer, positions: batch.positions.pointer, rows: batch.rows.pointer,
            queryOffsets: batch.queryOffsets.pointer, lengths: batch.lengths.pointer, blockTable: batch.blockTable.pointer,
            blockTableStride: Int32(batch.blockTable.shape.last), tokenCount: Int32(batch.tokenCount),
            rowCount: Int32(batch.rowCount), maximumQueryLength: Int32(batch.maximumQueryLength),
            maximumLength: Int32(batch.maximumLength), unused: 0)
    }
}

extension NibbleHeads {
    init(_ part: QueryKeyValueLayout.Part, heads: Int) {
        self.init(
            offset: Int32(part.offset), stride: Int32(part.stride), group: Int32(max(part.groupSize, 1)), heads: Int32(heads))
    }
}

extension NibbleRotateArguments {
    mutating func set(_ rotary: RotaryTable) {
        cosines = rotary.cosines.pointer
        sines = rotary.sines.pointer
        rotated = Int32(rotary.rotated)
        isInterleaved = rotary.isInterleaved ? 1 : 0
        rotaryPositions = Int32(rotary.cosines.count / max(rotary.rotated / 2, 1))
    }

    mutating func set(_ norm: QueryKeyNorm) {
        normScope = norm.scope == .head ? 1 : 2
        queryWeight = norm.query.weight.pointer
        queryBias = norm.query.bias.pointer
        queryWeightCount = Int64((norm.query.weight ?? norm.query.bias)?.count ?? 0)
        queryIsLayerNorm = norm.query.kind == .layer ? 1 : 0
        queryEpsilon = norm.query.epsilon
        keyWeight = norm.key.weight.pointer
        keyBias = norm.key.bias.pointer
        keyWeightCount = Int64((norm.key.weight ?? norm.key.bias)?.count ?? 0)
        keyIsLayerNorm = norm.key.kind == .layer ? 1 : 0
        keyEpsilon = norm.key.epsilon
    }
}

extension NibbleAttentionArguments {
    init(_ call: AttentionCall, _ batch: BatchIndices, _ output: Tensor) {
        self.init()
        let geometry = call.cache.geometry
        queries = call.queries.pointer
        self.output = output.pointer
        keys = call.cache.keys.pointer
        values = call.cache.values.pointer
        self.batch = NibbleBatch(batch)
        queryStride = Int64(call.queries.shape.last)
        queryOffset = Int32(call.layout.offset)
        queryHeadStride = Int32(call.layout.stride)
        queryGroup = Int32(max(call.layout.groupSize, 1))
        heads = Int32(call.heads)
        keyValueHeads = Int32(geometry.heads)
        keySize = Int32(geometry.keySize)
        valueSize = Int32(geometry.valueSize)
        cacheType = geometry.dtype.code
        scale = call.scale
        softCap = call.softCap ?? 0
        window = Int32(clamping: call.window ?? 0)
        isCausal = call.isCausal ? 1 : 0
        switch call.bias {
        case .none: bias = NIBBLE_BIAS_NONE
        case .alibi(let slopes):
            bias = NIBBLE_BIAS_ALIBI
            biasTable = slopes.pointer
        case .relative(let table, let isBidirectional, let maximumDistance):
            bias = NIBBLE_BIAS_RELATIVE
            biasTable = table.pointer
            buckets = Int32(table.shape[0])
            self.isBidirectional = isBidirectional ? 1 : 0
            self.maximumDistance = Int32(clamping: maximumDistance)
        }
    }
}
