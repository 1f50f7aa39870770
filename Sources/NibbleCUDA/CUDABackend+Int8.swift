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
        if case .rows = path {
            return try inSlices(run, of: Int(NIBBLE_GEMV8_MAX_M)) { slice in
                try launch(
                    .gemv8, element, grid: Grid(x: run.blocks(per: NIBBLE_GEMV8_ROWS)), block: Int(NIBBLE_GEMV8_THREADS), slice)
            }
        }
        guard let products, suitsLibrary(run) else { return try ownProduct(run, run.arguments, element) }
        try libraryProduct(products, run, element)
    }

    private func ownProduct(_ run: LinearRun, _ arguments: NibbleLinearArguments, _ element: KernelElement) throws {
        try launch(.gemm8, element, grid: tileGrid(run, arguments), block: Int(NIBBLE_GEMM8_THREADS), arguments)
    }

    private func tileGrid(_ run: LinearRun, _ arguments: NibbleLinearArguments) -> Grid {
        Grid(x: run.blocks(per: NIBBLE_GEMM8_TILE_N), y: blocks(Int(arguments.tokens), per: NIBBLE_GEMM8_TILE_M))
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
        run.arguments.columnFlags = arguments.columnFlags
        run.arguments.quantizedStride = arguments.quantizedStride
        run.arguments.outlierCapacity = arguments.outlierCapacity
        run.arguments.outlierThreshold = threshold
        run.arguments.roundsToHalf = arguments.roundsToHalf
    }

    /// The library's kernels want rows of whole 16 bytes.
    private func suitsLibrary(_ run: LinearRun) -> Bool { run.inFeatures % 16 == 0 && run.outFeatures % 4 == 0 }

    /// Integer products by the library, then scales, outliers and epilogue, as many tokens at a time as fit the workspace.
    private func libraryProduct(_ products: MatrixProducts, _ run: LinearRun, _ element: KernelElement) throws {
        let scratch = try workspace.take(products.workspaceBytes)
        let tokensAtATime = min(max(options.scratchLimit / (4 * run.outFeatures) / 64, 1) * 64, run.tokens)
        let accumulated = try workspace.take(tokensAtATime * run.outFeatures * 4)
        try inSlices(run, of: tokensAtATime) { slice in
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
            try launch(.finishInt8, element, grid: tileGrid(run, slice), block: Int(NIBBLE_GEMM8_THREADS), slice)
        }
    }
}
