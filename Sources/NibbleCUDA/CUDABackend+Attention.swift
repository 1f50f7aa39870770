internal import CNibbleCUDA
package import NibbleCore

extension CUDABackend {
    package func rotateAndStore(_ call: RotateAndStoreCall, _ batch: BatchIndices) throws {
        try perform {
            let element = try element(call.projections.dtype, for: "rotary embedding")
            let arguments = NibbleRotateArguments(call, batch)
            // With few tokens, more threads are faster than wide accesses, unless there is nothing to rotate.
            if batch.tokenCount > 4 || arguments.cosines == 0, suitsRuns(arguments, element) {
                let threads = Int(max(arguments.keySize, arguments.valueSize)) / 8 * (call.heads + 2 * call.keyValueHeads)
                return try launch(
                    .rotateEight, element, grid: Grid(x: batch.tokenCount, y: blocks(threads, per: 128)), block: 128, arguments)
            }
            let spansToken = arguments.normScope == 2
            let grid = Grid(x: batch.tokenCount, y: spansToken ? 3 : call.heads + 2 * call.keyValueHeads)
            try launch(.rotate, element, grid: grid, block: spansToken ? 256 : 64, arguments)
        }
    }

    /// Whether `rotate_eight` supports the call: sizes and offsets are multiples of eight elements, and the cache is dense.
    private func suitsRuns(_ arguments: NibbleRotateArguments, _ element: KernelElement) -> Bool {
        let parts = [arguments.query, arguments.key, arguments.value].flatMap { [$0.offset, $0.stride] }
        let half = arguments.cosines == 0 ? 0 : arguments.isInterleaved != 0 ? arguments.rotated : arguments.rotated / 2
        let isEven = arguments.cosines == 0 || arguments.rotated % 2 == 0
        return element != .f32 && arguments.normScope == 0 && arguments.normsValues == 0 && arguments.temperatureBeta == 0
            && arguments.cacheBits == 0
            && arguments.cacheType == element.code && isEven
            && ([arguments.keySize, arguments.valueSize, half, Int32(arguments.width % 8)] + parts).allSatisfy { $0 % 8 == 0 }
            && (arguments.projections | arguments.keys | arguments.values) % 16 == 0
    }

    package func attend(_ call: AttentionCall, _ batch: BatchIndices, into output: Tensor) throws {
        try perform {
            let element = try element(call.queries.dtype, for: "attention")
            var arguments = NibbleAttentionArguments(call, batch, output)
            if suitsStep(call, batch, element) {
                return try attendStep(arguments, NibbleRotateArguments(queriesOf: call, batch), storesKeys: false, element)
            }
            if suitsSplits(call, batch, element) {
                return try attendInSplits(&arguments, call.cache.geometry.heads, element)
            }
            if let kernel = widePrefillKernel(call, batch, element) {
                let tiles = blocks(batch.maximumQueryLength, per: NIBBLE_PREFILL_WIDE_QUERIES)
                return try launch(
                    kernel, element, grid: Grid(x: call.heads, y: tiles, z: batch.rowCount),
                    block: 2 * Int(NIBBLE_PREFILL_WIDE_QUERIES), shared: Int(nibble_prefill_wide_shared(arguments.keySize)),
                    arguments)
            }
            if let kernel = prefillKernel(call, batch, element) {
                let tiles = blocks(batch.maximumQueryLength, per: NIBBLE_PREFILL_QUERIES)
                return try launch(
                    kernel, element, grid: Grid(x: tiles, y: call.heads, z: batch.rowCount),
                    block: Int(NIBBLE_PREFILL_THREADS),
                    shared: Int(nibble_prefill_shared(arguments.keySize, arguments.valueSize)), arguments)
            }
            let kernel = arguments.cacheBits == 0 ? Kernel.attend : .attendCodes
            try launch(kernel, element, grid: Grid(x: batch.tokenCount, y: call.heads), block: 128, arguments)
        }
    }

    // MARK: One query a row: keys in splits of fixed length

    private func suitsSplits(_ call: AttentionCall, _ batch: BatchIndices, _ element: KernelElement) -> Bool {
        guard batch.maximumQueryLength == 1, !options.isBatchInvariant else { return false }
        let geometry = call.cache.geometry
        let (keySize, valueSize) = (Int32(geometry.keySize), Int32(geometry.valueSize))
        if let codes = geometry.quantization {
            return nibble_split_codes_supports(keySize, valueSize, Int32(codes.bits), Int32(codes.groupSize)) != 0
        }
        return geometry.dtype == call.queries.dtype
            && nibble_split_supports(keySize, valueSize, Int32(geometry.dtype.byteCount)) != 0
    }

    private func attendInSplits(_ arguments: inout NibbleAttentionArguments, _ groups: Int, _ element: KernelElement) throws {
        let (tokens, heads) = (Int(arguments.batch.tokenCount), Int(arguments.heads))
        let splits = max(blocks(Int(arguments.batch.maximumLength), per: NIBBLE_SPLIT_LENGTH), 1)
        arguments.splitLength = NIBBLE_SPLIT_LENGTH
        arguments.splits = Int32(splits)
        arguments.partials = UInt64(
            try workspace.take(splits == 1 ? 0 : tokens * heads * splits * (Int(arguments.valueSize) + 2) * 4))
        let grid = Grid(x: tokens, y: groups * blocks(heads / groups, per: nibble_split_heads(arguments.valueSize)), z: splits)
        let shared = Int(nibble_split_shared(arguments.heads, arguments.keyValueHeads, arguments.valueSize))
        // With few blocks the last one combines the splits; with many a separate kernel is faster.
        let combinesItself = splits > 1 && grid.x * grid.y * splits < 1000
        if combinesItself { arguments.arrivals = try nextArrivalCounters() }
        let kernel = arguments.cacheBits == 0 ? Kernel.attendSplit : .attendSplitCodes
        try launch(kernel, element, grid: grid, block: Int(NIBBLE_SPLIT_THREADS), shared: shared, arguments)
        if splits > 1, !combinesItself {
            try launch(.attendCombine, element, grid: Grid(x: tokens, y: heads), block: 128, arguments)
        }
    }

    /// Counters for the blocks of one call, zero before and after it.
    func nextArrivalCounters() throws -> UInt64 {
        if arrivalCounters == nil {
            let counters = try memory.allocate(.int32, [arrivalSets.count, CUDABackend.arrivalCount])
            try fill(counters.address, 0, byteCount: counters.byteCount)
            arrivalCounters = counters
        }
        return arrivalCounters.pointer + UInt64(arrivalSets.next() * CUDABackend.arrivalCount * 4)
    }

    // MARK: Many queries a row: tiles on tensor cores

    /// With fewer, some warpgroups of a block would have no queries.
    private static let leastWideQueries = 192

    private func widePrefillKernel(_ call: AttentionCall, _ batch: BatchIndices, _ element: KernelElement) -> Kernel? {
        let geometry = call.cache.geometry
        guard hasWarpgroups, batch.maximumQueryLength >= CUDABackend.leastWideQueries, !options.isBatchInvariant,
            element != .f32, geometry.quantization == nil, geometry.dtype == call.queries.dtype,
            nibble_prefill_wide_supports(Int32(geometry.keySize), Int32(geometry.valueSize)) != 0
        else { return nil }
        if case .relative = call.bias { return nil }
        return Kernel.attendPrefillWide(headSize: geometry.keySize)
    }

    private func prefillKernel(_ call: AttentionCall, _ batch: BatchIndices, _ element: KernelElement) -> Kernel? {
        let geometry = call.cache.geometry
        let (keySize, valueSize) = (Int32(geometry.keySize), Int32(geometry.valueSize))
        let isSupported =
            if let codes = geometry.quantization {
                keySize == valueSize && nibble_prefill_codes_supports(keySize, Int32(codes.bits), Int32(codes.groupSize)) != 0
            } else {
                geometry.dtype == call.queries.dtype && nibble_prefill_supports(keySize, valueSize) != 0
            }
        guard isSupported, batch.maximumQueryLength > 1, !options.isBatchInvariant,
            element == .f16 || element == .bf16 && kernels.target.level >= 80,
            Int(nibble_prefill_shared(keySize, valueSize)) <= sharedMemoryLimit
        else { return nil }
        if case .relative(_, _, let distance) = call.bias, distance > Int(NIBBLE_PREFILL_MAX_DISTANCE) { return nil }
        return Kernel.attendPrefill(headSize: geometry.keySize, isDense: geometry.quantization == nil)
    }

    package func copyBlocks(_ cache: KeyValueCache, pairs: Tensor) throws {
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

/// Yields 0 ..< count in turn.
package struct RoundRobin {
    package let count: Int
    private var last: Int

    package init(count: Int) {
        self.count = count
        last = count - 1
    }

    package mutating func next() -> Int {
        last = (last + 1) % count
        return last
    }
}

extension KeyValueGeometry {
    /// NIBBLE_F32 and so on; unused for a quantized cache.
    fileprivate var cacheType: Int32 { quantization == nil ? dtype.code : 0 }
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
    init(_ part: QueryKeyValueLayout.HeadOffsets, heads: Int) {
        self.init(
            offset: Int32(part.offset), stride: Int32(part.stride), group: Int32(max(part.groupSize, 1)), heads: Int32(heads))
    }
}

extension NibbleRotateArguments {
    init(_ call: RotateAndStoreCall, _ batch: BatchIndices) {
        self.init()
        let geometry = call.cache.geometry
        projections = call.projections.pointer
        keys = call.cache.keys.pointer
        values = call.cache.values.pointer
        self.batch = NibbleBatch(batch)
        query = NibbleHeads(call.layout.query, heads: call.heads)
        key = NibbleHeads(call.layout.key, heads: call.keyValueHeads)
        value = NibbleHeads(call.layout.value, heads: call.keyValueHeads)
        width = Int64(call.projections.shape.last)
        keySize = Int32(geometry.keySize)
        valueSize = Int32(geometry.valueSize)
        cacheType = geometry.cacheType
        cacheBits = Int32(geometry.quantization?.bits ?? 0)
        cacheGroup = Int32(geometry.quantization?.groupSize ?? 0)
        clip = call.clip ?? 0
        temperatureBeta = call.temperature?.beta ?? 0
        temperatureLength = Int32(clamping: call.temperature?.length ?? 1)
        valueEpsilon = call.valueEpsilon ?? 0
        normsValues = call.valueEpsilon == nil ? 0 : 1
        if let rotary = call.rotary { set(rotary) }
        if let norm = call.norm { set(norm) }
    }

    /// Queries that are neither normalized nor rotated any more.
    init(queriesOf call: AttentionCall, _ batch: BatchIndices) {
        self.init()
        projections = call.queries.pointer
        self.batch = NibbleBatch(batch)
        query = NibbleHeads(call.layout, heads: call.heads)
        (key, value) = (query, query)
        width = Int64(call.queries.shape.last)
        keySize = Int32(call.cache.geometry.keySize)
        temperatureLength = 1
    }

    mutating func set(_ rotary: RotaryTable) {
        cosines = rotary.cosines.pointer
        sines = rotary.sines.pointer
        rotated = Int32(rotary.rotated)
        isInterleaved = rotary.isInterleaved ? 1 : 0
        rotaryPositions = Int32(rotary.cosines.count / max(rotary.rotated / 2, 1))
    }

    mutating func set(_ norm: QueryKeyNorm) {
        normScope =
            switch norm.scope {
            case .head: 1
            case .token: 2
            case .rotatedHead: 3
            }
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
        cacheType = geometry.cacheType
        cacheBits = Int32(geometry.quantization?.bits ?? 0)
        cacheGroup = Int32(geometry.quantization?.groupSize ?? 0)
        scale = call.scale
        softCap = call.softCap ?? 0
        window = Int32(clamping: call.window ?? 0)
        isCausal = call.isCausal ? 1 : 0
        sinks = call.sinks.pointer
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
