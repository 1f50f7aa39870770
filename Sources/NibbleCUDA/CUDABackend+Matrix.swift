internal import CNibbleCUDA
internal import NibbleCore

/// Products of many tokens: weights as plain matrices, in parts that fit the workspace.
extension CUDABackend {
    /// - Parameter isStored: the weights lie there as `element` already; otherwise they are brought to it first.
    func matrix(_ run: LinearRun, _ element: KernelElement, isStored: Bool) throws {
        var part = 0
        for layer in run.layers {
            let arguments = run.part(part)
            for rows in rowChunks(layer, tokens: run.tokens, element, isStored: isStored) {
                let mark = workspace.mark()
                let size = element == .f32 ? 4 : 2
                let weight: UInt
                if isStored {
                    weight = UInt(arguments.weight) + UInt(rows.lowerBound * run.inFeatures * size)
                } else {
                    weight = try workspace.take(rows.count * run.inFeatures * size)
                    try dequantizeRows(layer.weight, rows, as: element, to: weight)
                }
                try product(run, arguments, rows, weight: weight, element)
                workspace.release(mark)
            }
            part += 1
        }
    }

    /// Rows of a weight that are multiplied at a time.
    private func rowChunks(_ layer: Linear, tokens: Int, _ element: KernelElement, isStored: Bool) -> [Range<Int>] {
        let size = element == .f32 ? 4 : 2
        let unit = rowUnit(layer.weight)
        let byResults = options.scratchLimit / (4 * max(tokens, 1))
        let byWeights = isStored ? .max : options.scratchLimit / (layer.inFeatures * size)
        let step = max(min(byResults, byWeights) / unit, 1) * unit
        return stride(from: 0, to: layer.outFeatures, by: step).map { $0..<min($0 + step, layer.outFeatures) }
    }

    /// Rows after which a weight can be cut: whole tiles, whole quantization blocks, whole blocks of nested scales.
    func rowUnit(_ weight: LinearWeight) -> Int {
        let format: FourBitFormat
        switch weight {
        case .fourBit(let weight): format = weight.format
        case .prepared(let tiled as TiledFourBitWeight): format = tiled.weight.format
        default: return 16
        }
        let elements = format.blockSize * (format.isNested ? FourBitFormat.nestedBlockSize : 1)
        let rows = elements / greatestCommonDivisor(elements, weight.inFeatures)
        return rows / greatestCommonDivisor(rows, 16) * 16
    }

    /// Columns `rows` of one layer's output.
    private func product(
        _ run: LinearRun, _ part: NibbleLinearPart, _ rows: Range<Int>, weight: UInt, _ element: KernelElement
    ) throws {
        let bias = part.bias == 0 ? 0 : part.bias + UInt64(rows.lowerBound * 4)
        let column = Int(part.firstColumn) + rows.lowerBound
        if let products, try libraryProduct(products, run, rows.count, column, weight: weight, bias: bias, element) { return }

        var arguments = run.arguments
        var own = NibbleLinearPart()
        own.weight = UInt64(weight)
        own.bias = bias
        own.outFeatures = Int32(rows.count)
        own.firstColumn = Int32(column)
        arguments.parts.0 = own
        arguments.partCount = 1
        let grid = Grid(x: blocks(rows.count, per: NIBBLE_GEMM_TILE_N), y: blocks(run.tokens, per: NIBBLE_GEMM_TILE_M))
        try launch(.gemm, element, grid: grid, block: Int(NIBBLE_GEMM_THREADS), arguments)
    }

    private func libraryProduct(
        _ products: MatrixProducts, _ run: LinearRun, _ outFeatures: Int, _ column: Int, weight: UInt, bias: UInt64,
        _ element: KernelElement
    ) throws -> Bool {
        let epilogue = run.arguments.epilogue
        let outputIsNative = epilogue.outputType == element.code || epilogue.outputType == NIBBLE_F32
        let residualFits = epilogue.residual == 0 || epilogue.residualType == epilogue.outputType
        let isDirect = epilogue.isPlain && bias == 0 && outputIsNative && residualFits && !options.isBatchInvariant
        if options.isBatchInvariant { return false }
        allowsOverlap = false
        let scratch = try workspace.take(products.workspaceBytes)
        var product = MatrixProducts.Product(
            tokens: run.tokens, outFeatures: outFeatures, inFeatures: run.inFeatures, inputStride: run.inFeatures,
            outputStride: outFeatures, element: .init(element), outputElement: .f32, input: UInt(run.arguments.input),
            weight: weight, output: 0)
        if isDirect {
            let offset = column * NibbleEpilogue.size(epilogue.outputType)
            product.outputStride = Int(epilogue.outputStride)
            product.outputElement = epilogue.outputType == NIBBLE_F32 ? .f32 : .init(element)
            product.output = UInt(epilogue.output) + UInt(offset)
            product.addend = epilogue.residual == 0 ? 0 : UInt(epilogue.residual) + UInt(offset)
            return try products.run(product, workspace: scratch, on: stream)
        }
        product.output = try workspace.take(run.tokens * outFeatures * 4)
        guard try products.run(product, workspace: scratch, on: stream) else { return false }
        let arguments = NibbleFinishArguments(
            products: UInt64(product.output), bias: bias, epilogue: epilogue, productType: NIBBLE_F32,
            tokens: Int32(run.tokens), columns: Int32(outFeatures), firstColumn: Int32(column))
        try launch(.finishLinear, grid: Grid(x: blocks(run.tokens * outFeatures, per: 256)), block: 256, arguments)
        return true
    }
}

extension LinearRun {
    func part(_ index: Int) -> NibbleLinearPart {
        withUnsafeBytes(of: arguments.parts) { $0.bindMemory(to: NibbleLinearPart.self)[index] }
    }
}

func greatestCommonDivisor(_ a: Int, _ b: Int) -> Int {
    var (a, b) = (a, b)
    while b != 0 { (a, b) = (b, a % b) }
    return max(a, 1)
}
