internal import CNibbleCUDA
internal import NibbleCore

/// LLM.int8(): activations are quantized row by row and their outlier columns listed, all on the device.
extension CUDABackend {
    /// Columns that the outlier list of a row holds. Kernels search rows with more outliers again.
    private static let outlierCapacity = 512

    func int8(
        _ fused: inout FusedLayers, threshold: Float, scope: LinearArithmetic.OutlierScope, roundsToHalf: Bool, _ path: LinearPath
    ) throws {
        let element = try element(fused.dtype, for: "linear")
        if case .wide = path, suitsWideInt8(fused),
            try wideInt8(&fused, threshold: threshold, scope: scope, roundsToHalf: roundsToHalf)
        {
            return
        }
        _ = try quantizeRows(&fused, threshold: threshold, scope: scope, roundsToHalf: roundsToHalf, element)
        // Quantizing prepared the tokens if they have a prologue.
        fused.arguments.prologue = NibblePrologue()
        if fused.adapters == nil { try shrink(&fused) }
        let usesGEMV =
            switch path {
            case .gemv: true
            case .wide: fused.tokens <= Int(NIBBLE_GEMV_INT8_MAX_M)
            default: false
            }
        let sliceTokens = usesGEMV ? Int(NIBBLE_GEMV_INT8_MAX_M) : sliceTokens(fused)
        // A GEMV adds its outliers itself.
        if threshold > 0, !usesGEMV {
            fused.arguments.outlierSumsStride = Int64(fused.outFeatures)
            fused.arguments.outlierSums = UInt64(try workspace.take(min(sliceTokens, fused.tokens) * fused.outFeatures * 4))
        }
        let library = usesGEMV || !suitsLibrary(fused) ? nil : products
        let scratch = try workspace.take(library?.workspaceBytes ?? 0)
        let accumulated = try workspace.take(library == nil ? 0 : min(sliceTokens, fused.tokens) * fused.outFeatures * 4)
        let deltas = try adapterMemory(fused, tokens: min(sliceTokens, fused.tokens))
        try inSlices(fused, of: sliceTokens) { slice, tokens in
            var slice = slice
            try expand(fused, tokens, deltas, for: &slice)
            if slice.outlierSums != 0 { try sumOutliers(fused, slice, element) }
            if usesGEMV {
                try launch(
                    .gemvInt8, element, grid: Grid(x: fused.blocks(per: NIBBLE_GEMV_INT8_ROWS)),
                    block: Int(NIBBLE_GEMV_INT8_THREADS), slice)
            } else if let library {
                try libraryProduct(library, fused, slice, scratch: scratch, accumulated: accumulated, element)
            } else {
                try ownProduct(fused, slice, element)
            }
        }
    }

    /// The number of tokens whose products fit the scratch memory.
    func sliceTokens(_ fused: FusedLayers) -> Int {
        max(options.scratchLimit / (4 * fused.outFeatures) / (fused.adapters == nil ? 64 : 128), 1) * 64
    }

    /// Sums the products of outlier columns, for the kernel that stores the outputs.
    private func sumOutliers(_ fused: FusedLayers, _ slice: NibbleLinearArguments, _ element: KernelElement) throws {
        let tokens = Int(slice.tokens)
        let warps = Int(NIBBLE_OUTLIER_THREADS) / 32
        let few = Int(NIBBLE_OUTLIER_FEW_TOKENS_PER_WARP)
        var slice = slice
        let tokensPerWarp = min(blocks(tokens, per: warps), Int(NIBBLE_OUTLIER_TOKENS_PER_WARP))
        slice.outlierTokensPerWarp = Int32(tokensPerWarp)
        let grid = Grid(x: fused.blocks(per: NIBBLE_OUTLIER_TILE_N), y: blocks(tokens, per: tokensPerWarp * warps))
        let kernel = tokensPerWarp <= few ? Kernel.sumFewOutliers : .sumOutliers
        try launch(kernel, element, grid: grid, block: Int(NIBBLE_OUTLIER_THREADS), slice)
    }

    private func ownProduct(_ fused: FusedLayers, _ arguments: NibbleLinearArguments, _ element: KernelElement) throws {
        let grid = Grid(
            x: fused.blocks(per: NIBBLE_GEMM_INT8_TILE_N), y: blocks(Int(arguments.tokens), per: NIBBLE_GEMM_INT8_TILE_M))
        try launch(.gemmInt8, element, grid: grid, block: Int(NIBBLE_GEMM_INT8_THREADS), arguments)
    }

    /// Quantizes the rows of the input, and prepares them if they have a prologue.
    /// - Parameter listsOutliers: whether outliers are listed; otherwise they are laid out as 16-bit rows, for kernels on
    ///   warpgroups.
    func quantizeRows(
        _ fused: inout FusedLayers, threshold: Float, scope: LinearArithmetic.OutlierScope, roundsToHalf: Bool,
        _ element: KernelElement, listsOutliers: Bool = true
    ) throws -> NibbleRowQuantizeArguments {
        let columns = fused.inFeatures
        guard columns <= 8 * Int(NIBBLE_QUANTIZE_ROWS_THREADS * NIBBLE_QUANTIZE_ROWS_PASSES) else {
            throw BackendError.unsupported(device: device, operation: "int8", reason: "rows have \(columns) columns")
        }
        let stride = blocks(columns, per: 16) * 16
        var arguments = NibbleRowQuantizeArguments()
        arguments.input = fused.arguments.input
        arguments.quantized = UInt64(try workspace.take(fused.tokens * stride))
        arguments.rowScales = UInt64(try workspace.take(fused.tokens * 4))
        arguments.quantizedStride = Int64(stride)
        arguments.tokens = Int32(fused.tokens)
        arguments.inFeatures = Int32(columns)
        arguments.outlierThreshold = threshold
        arguments.roundsToHalf = roundsToHalf ? 1 : 0
        if listsOutliers {
            try takeLists(&arguments, fused.tokens)
        } else if threshold > 0 {
            arguments.outliers = UInt64(try workspace.take(fused.tokens * stride * fused.dtype.byteCount))
            arguments.outlierTileWords = Int32(blocks(columns, per: 32 * 128))
            arguments.outlierTiles = UInt64(try workspace.take(fused.tokens * Int(arguments.outlierTileWords) * 4))
        }
        arguments.prologue = fused.arguments.prologue
        // Adapters and searches for outliers read the tokens again.
        if fused.arguments.prologue.kind != NIBBLE_PROLOGUE_NONE, listsOutliers || fused.adapterRows != nil {
            arguments.prepared = UInt64(try workspace.take(fused.tokens * columns * fused.dtype.byteCount))
        }
        if scope == .call, threshold > 0 {
            let flags = try workspace.take(columns)
            arguments.columnFlags = UInt64(flags)
            try fill(flags, 0, byteCount: columns)
            try launch(
                .markOutliers, element, grid: Grid(x: blocks(columns, per: 256), y: min(fused.tokens, 64)), block: 256, arguments)
        }
        try launch(
            .quantizeRows, element, grid: Grid(x: fused.tokens), block: Int(NIBBLE_QUANTIZE_ROWS_THREADS), arguments)
        setQuantized(&fused, arguments)
        return arguments
    }

    private func takeLists(_ arguments: inout NibbleRowQuantizeArguments, _ tokens: Int) throws {
        let columns = Int(arguments.inFeatures)
        let capacity = min(columns, CUDABackend.outlierCapacity)
        let starts = blocks(columns, per: NIBBLE_OUTLIER_CHUNK) + 1
        arguments.outlierCapacity = Int32(capacity)
        arguments.outlierCounts = UInt64(try workspace.take(tokens * 4))
        arguments.outlierColumns = UInt64(try workspace.take(tokens * capacity * 4))
        arguments.outlierValues = UInt64(try workspace.take(tokens * capacity * 4))
        arguments.outlierStarts = UInt64(try workspace.take(tokens * starts * 4))
        arguments.outlierStartsStride = Int32(starts)
    }

    private func setQuantized(_ fused: inout FusedLayers, _ arguments: NibbleRowQuantizeArguments) {
        if arguments.prepared != 0 { fused.arguments.input = arguments.prepared }
        fused.arguments.quantized = arguments.quantized
        fused.arguments.rowScales = arguments.rowScales
        fused.arguments.outlierCounts = arguments.outlierCounts
        fused.arguments.outlierColumns = arguments.outlierColumns
        fused.arguments.outlierValues = arguments.outlierValues
        fused.arguments.outlierStarts = arguments.outlierStarts
        fused.arguments.outlierStartsStride = arguments.outlierStartsStride
        fused.arguments.columnFlags = arguments.columnFlags
        fused.arguments.quantizedStride = arguments.quantizedStride
        fused.arguments.outlierCapacity = arguments.outlierCapacity
        fused.arguments.outlierThreshold = arguments.outlierThreshold
        fused.arguments.roundsToHalf = arguments.roundsToHalf
    }

    /// cuBLASLt needs rows that are multiples of 16 bytes.
    private func suitsLibrary(_ fused: FusedLayers) -> Bool { fused.inFeatures % 16 == 0 && fused.outFeatures % 4 == 0 }

    /// Integer products by cuBLASLt, then scales, outliers and epilogue.
    private func libraryProduct(
        _ products: MatrixProducts, _ fused: FusedLayers, _ slice: NibbleLinearArguments, scratch: UInt, accumulated: UInt,
        _ element: KernelElement
    ) throws {
        for index in 0..<fused.layers.count {
            let part = fused.part(index)
            let column = Int(part.firstColumn) - fused.firstColumn
            let product = MatrixProducts.Product(
                tokens: Int(slice.tokens), outFeatures: Int(part.outFeatures), inFeatures: fused.inFeatures,
                inputStride: Int(slice.quantizedStride), outputStride: fused.outFeatures, element: .int8,
                outputElement: .int8, input: UInt(slice.quantized), weight: UInt(part.weight),
                output: accumulated + UInt(column * 4))
            allowsOverlap = false
            guard try products.run(product, workspace: scratch, on: stream) else {
                return try ownProduct(fused, slice, element)
            }
        }
        var slice = slice
        slice.accumulated = UInt64(accumulated)
        let grid = Grid(x: Int(slice.tokens), y: blocks(fused.outFeatures, per: 8 * NIBBLE_FINISH_INT8_THREADS))
        try launch(.finishInt8, element, grid: grid, block: Int(NIBBLE_FINISH_INT8_THREADS), slice)
    }
}
