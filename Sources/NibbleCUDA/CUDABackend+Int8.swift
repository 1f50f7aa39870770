internal import CNibbleCUDA
internal import NibbleCore

/// LLM.int8(): activations are quantized row by row and their outlier columns listed, all on the device.
extension CUDABackend {
    /// Outlier columns a row's list holds; a longer one is found anew by whoever needs it.
    private static let outlierCapacity = 512

    func int8(
        _ run: inout LinearRun, threshold: Float, scope: LinearArithmetic.OutlierScope, roundsToHalf: Bool, _ path: LinearPath
    ) throws {
        let element = try element(run.dtype, for: "linear")
        try quantizeRows(&run, threshold: threshold, scope: scope, roundsToHalf: roundsToHalf, element)
        let usesGEMV = if case .rows = path { true } else { false }
        let sliceTokens = usesGEMV ? Int(NIBBLE_GEMV8_MAX_M) : sliceTokens(run)
        // A GEMV adds its outliers itself.
        if threshold > 0, !usesGEMV {
            run.arguments.outlierSumsStride = Int64(run.outFeatures)
            run.arguments.outlierSums = UInt64(try workspace.take(min(sliceTokens, run.tokens) * run.outFeatures * 4))
        }
        let library = usesGEMV || !suitsLibrary(run) ? nil : products
        let scratch = try workspace.take(library?.workspaceBytes ?? 0)
        let accumulated = try workspace.take(library == nil ? 0 : min(sliceTokens, run.tokens) * run.outFeatures * 4)
        try inSlices(run, of: sliceTokens) { slice in
            if slice.outlierSums != 0 { try sumOutliers(run, slice, element) }
            if usesGEMV {
                try launch(
                    .gemv8, element, grid: Grid(x: run.blocks(per: NIBBLE_GEMV8_ROWS)), block: Int(NIBBLE_GEMV8_THREADS), slice)
            } else if let library {
                try libraryProduct(library, run, slice, scratch: scratch, accumulated: accumulated, element)
            } else {
                try ownProduct(run, slice, element)
            }
        }
    }

    /// Tokens at a time whose products fit the scratch memory.
    private func sliceTokens(_ run: LinearRun) -> Int {
        max(options.scratchLimit / (4 * run.outFeatures) / 64, 1) * 64
    }

    /// The outlier columns' part of the products of `slice`, for the kernel that stores the outputs.
    private func sumOutliers(_ run: LinearRun, _ slice: NibbleLinearArguments, _ element: KernelElement) throws {
        let tokens = Int(slice.tokens)
        let warps = Int(NIBBLE_OUTLIER_THREADS) / 32
        let few = Int(NIBBLE_OUTLIER_FEW_TOKENS_PER_WARP)
        var slice = slice
        let tokensPerWarp = min(blocks(tokens, per: warps), Int(NIBBLE_OUTLIER_TOKENS_PER_WARP))
        slice.outlierTokensPerWarp = Int32(tokensPerWarp)
        let grid = Grid(x: run.blocks(per: NIBBLE_OUTLIER_TILE_N), y: blocks(tokens, per: tokensPerWarp * warps))
        let kernel = tokensPerWarp <= few ? Kernel.sumFewOutliers : .sumOutliers
        try launch(kernel, element, grid: grid, block: Int(NIBBLE_OUTLIER_THREADS), slice)
    }

    private func ownProduct(_ run: LinearRun, _ arguments: NibbleLinearArguments, _ element: KernelElement) throws {
        let grid = Grid(x: run.blocks(per: NIBBLE_GEMM8_TILE_N), y: blocks(Int(arguments.tokens), per: NIBBLE_GEMM8_TILE_M))
        try launch(.gemm8, element, grid: grid, block: Int(NIBBLE_GEMM8_THREADS), arguments)
    }

    private func quantizeRows(
        _ run: inout LinearRun, threshold: Float, scope: LinearArithmetic.OutlierScope, roundsToHalf: Bool,
        _ element: KernelElement
    ) throws {
        let columns = run.inFeatures
        let stride = blocks(columns, per: 16) * 16
        let capacity = min(columns, CUDABackend.outlierCapacity)
        var arguments = NibbleRowQuantizeArguments()
        arguments.input = run.input.pointer
        arguments.quantized = UInt64(try workspace.take(run.tokens * stride))
        arguments.rowScales = UInt64(try workspace.take(run.tokens * 4))
        arguments.outlierCounts = UInt64(try workspace.take(run.tokens * 4))
        arguments.outlierColumns = UInt64(try workspace.take(run.tokens * capacity * 4))
        arguments.outlierValues = UInt64(try workspace.take(run.tokens * capacity * 4))
        let starts = blocks(columns, per: NIBBLE_OUTLIER_CHUNK) + 1
        arguments.outlierStarts = UInt64(try workspace.take(run.tokens * starts * 4))
        arguments.outlierStartsStride = Int32(starts)
        arguments.quantizedStride = Int64(stride)
        arguments.tokens = Int32(run.tokens)
        arguments.inFeatures = Int32(columns)
        arguments.outlierCapacity = Int32(capacity)
        arguments.outlierThreshold = threshold
        arguments.roundsToHalf = roundsToHalf ? 1 : 0
        if run.arguments.prologue.kind != NIBBLE_PROLOGUE_NONE {
            arguments.prologue = run.arguments.prologue
            arguments.prepared = UInt64(try workspace.take(run.tokens * columns * run.dtype.byteCount))
        }
        if scope == .call, threshold > 0 {
            let flags = try workspace.take(columns)
            arguments.columnFlags = UInt64(flags)
            try fill(flags, 0, byteCount: columns)
            try launch(
                .markOutliers, element, grid: Grid(x: blocks(columns, per: 256), y: min(run.tokens, 64)), block: 256, arguments)
        }
        try launch(.quantizeRows, element, grid: Grid(x: run.tokens), block: 256, arguments)

        if arguments.prepared != 0 { run.arguments.input = arguments.prepared }
        run.arguments.quantized = arguments.quantized
        run.arguments.rowScales = arguments.rowScales
        run.arguments.outlierCounts = arguments.outlierCounts
        run.arguments.outlierColumns = arguments.outlierColumns
        run.arguments.outlierValues = arguments.outlierValues
        run.arguments.outlierStarts = arguments.outlierStarts
        run.arguments.outlierStartsStride = arguments.outlierStartsStride
        run.arguments.columnFlags = arguments.columnFlags
        run.arguments.quantizedStride = arguments.quantizedStride
        run.arguments.outlierCapacity = arguments.outlierCapacity
        run.arguments.outlierThreshold = threshold
        run.arguments.roundsToHalf = arguments.roundsToHalf
    }

    /// The library's kernels want rows of whole 16 bytes.
    private func suitsLibrary(_ run: LinearRun) -> Bool { run.inFeatures % 16 == 0 && run.outFeatures % 4 == 0 }

    /// Integer products by the library, then scales, outliers and epilogue.
    private func libraryProduct(
        _ products: MatrixProducts, _ run: LinearRun, _ slice: NibbleLinearArguments, scratch: UInt, accumulated: UInt,
        _ element: KernelElement
    ) throws {
        for index in 0..<run.layers.count {
            let part = run.part(index)
            let column = Int(part.firstColumn) - run.firstColumn
            let product = MatrixProducts.Product(
                tokens: Int(slice.tokens), outFeatures: Int(part.outFeatures), inFeatures: run.inFeatures,
                inputStride: Int(slice.quantizedStride), outputStride: run.outFeatures, element: .int8,
                outputElement: .int8, input: UInt(slice.quantized), weight: UInt(part.weight),
                output: accumulated + UInt(column * 4))
            allowsOverlap = false
            guard try products.run(product, workspace: scratch, on: stream) else {
                return try ownProduct(run, slice, element)
            }
        }
        var slice = slice
        slice.accumulated = UInt64(accumulated)
        let grid = Grid(x: Int(slice.tokens), y: blocks(run.outFeatures, per: 8 * NIBBLE_FINISH8_THREADS))
        try launch(.finishInt8, element, grid: grid, block: Int(NIBBLE_FINISH8_THREADS), slice)
    }
}
