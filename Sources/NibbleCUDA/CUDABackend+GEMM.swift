internal import CNibbleCUDA
internal import NibbleCore

/// Rows of weights that lie in memory one after the other and are multiplied at a time; their outputs stand side by side.
private struct WeightSlab {
    var pieces: [(part: Int, rows: Range<Int>)] = []
    var rowCount = 0

    mutating func append(_ part: Int, _ rows: Range<Int>) {
        pieces.append((part, rows))
        rowCount += rows.count
    }
}

/// Products of many tokens: weights as plain matrices, in parts that fit the workspace.
extension CUDABackend {
    /// - Parameter isStored: whether the weights are stored as `element`; otherwise they are dequantized first.
    func gemm(_ fused: FusedLayers, _ element: KernelElement, isStored: Bool) throws {
        for slab in slabs(fused, element, isStored: isStored) {
            let mark = workspace.mark()
            let rowBytes = fused.inFeatures * (element == .f32 ? 4 : 2)
            let weight: UInt
            if isStored {
                let piece = slab.pieces[0]
                weight = UInt(fused.part(piece.part).weight) + UInt(piece.rows.lowerBound * rowBytes)
            } else {
                weight = try workspace.take(slab.rowCount * rowBytes)
                var address = weight
                for piece in slab.pieces {
                    try dequantizeRows(fused.layer(piece.part).weight, piece.rows, as: element, to: address)
                    address += UInt(piece.rows.count * rowBytes)
                }
            }
            try product(fused, slab, weight: weight, element)
            workspace.release(mark)
        }
    }

    /// Whole layers together where their weights, once dequantized, and their results fit the scratch memory; parts of a layer
    /// where it does not fit alone.
    private func slabs(_ fused: FusedLayers, _ element: KernelElement, isStored: Bool) -> [WeightSlab] {
        let rowBytes = fused.inFeatures * (element == .f32 ? 4 : 2)
        let byResults = options.scratchLimit / (4 * max(fused.tokens, 1))
        let limit = isStored ? byResults : min(byResults, options.scratchLimit / rowBytes)
        // Every row begins at a multiple of 16 bytes, which the kernels that dequantize need.
        let joins = !isStored && rowBytes % 16 == 0
        var slabs: [WeightSlab] = []
        for (part, layer) in fused.layers.enumerated() {
            let rows = layer.outFeatures
            if joins, let last = slabs.last, last.rowCount + rows <= limit, last.endsWithWholeLayer(fused) {
                slabs[slabs.count - 1].append(part, 0..<rows)
                continue
            }
            let unit = rowUnit(layer.weight)
            let step = max(limit / unit, 1) * unit
            for first in stride(from: 0, to: rows, by: step) {
                var slab = WeightSlab()
                slab.append(part, first..<min(first + step, rows))
                slabs.append(slab)
            }
        }
        return slabs
    }

    /// Rows after which a weight can be cut: whole tiles, whole quantization blocks, whole blocks of nested scales.
    func rowUnit(_ weight: LinearWeight) -> Int {
        let format: FourBitFormat
        switch weight {
        case .fourBit(let weight): format = weight.format
        case .prepared(let tiled as TensorCoreFourBitWeight): format = tiled.weight.format
        default: return 16
        }
        let elements = format.blockSize * (format.isNested ? FourBitFormat.nestedBlockSize : 1)
        let rows = elements / greatestCommonDivisor(elements, weight.inFeatures)
        return rows / greatestCommonDivisor(rows, 16) * 16
    }

    private func product(_ fused: FusedLayers, _ slab: WeightSlab, weight: UInt, _ element: KernelElement) throws {
        if let products, try libraryProduct(products, fused, slab, weight: weight, element) { return }
        var address = weight
        for piece in slab.pieces {
            let mark = workspace.mark()
            defer { workspace.release(mark) }
            var arguments = fused.arguments
            arguments.parts.0 = fused.part(piece.part, rows: piece.rows, weight: UInt64(address))
            arguments.parts.0.lowRank = try expandedRows(fused, piece.part, piece.rows)
            arguments.layerCount = 1
            let grid = Grid(
                x: blocks(piece.rows.count, per: NIBBLE_GEMM_TILE_N), y: blocks(fused.tokens, per: NIBBLE_GEMM_TILE_M))
            try launch(.gemm, element, grid: grid, block: Int(NIBBLE_GEMM_THREADS), arguments)
            address += UInt(piece.rows.count * fused.inFeatures * (element == .f32 ? 4 : 2))
        }
    }

    /// What adapters add to rows of a layer, in workspace.
    private func expandedRows(_ fused: FusedLayers, _ layer: Int, _ rows: Range<Int>) throws -> NibbleLowRank {
        guard let lowRank = fused.adapters?.layers[layer]?.lowRank else { return NibbleLowRank() }
        let byteCount = fused.tokens * rows.count * 4
        var outputs = AdapterOutputs(layer: layer, rows: rows, deltas: UInt64(try workspace.take(byteCount)))
        if lowRank.gains != nil { outputs.factors = UInt64(try workspace.take(byteCount)) }
        try expand(fused, 0..<fused.tokens, [outputs], stride: rows.count)
        return NibbleLowRank(outputs, stride: rows.count)
    }

    private func libraryProduct(
        _ products: MatrixProducts, _ fused: FusedLayers, _ slab: WeightSlab, weight: UInt, _ element: KernelElement
    ) throws -> Bool {
        if options.isBatchInvariant { return false }
        let parts = slab.pieces.map { fused.part($0.part, rows: $0.rows, weight: 0) }
        let epilogue = fused.arguments.epilogue
        let outputIsNative = epilogue.outputType == element.code || epilogue.outputType == NIBBLE_F32
        let residualFits = epilogue.residual == 0 || epilogue.residualType == epilogue.outputType
        let changed = slab.pieces.indices.filter { fused.adapters?.layers[slab.pieces[$0].part] != nil }
        let isDirect =
            epilogue.isPlain && parts.allSatisfy { $0.bias == 0 } && changed.isEmpty && outputIsNative && residualFits
        allowsOverlap = false
        let scratch = try workspace.take(products.workspaceBytes)
        var product = MatrixProducts.Product(
            tokens: fused.tokens, outFeatures: slab.rowCount, inFeatures: fused.inFeatures, inputStride: fused.inFeatures,
            outputStride: slab.rowCount, element: .init(element), outputElement: .f32, input: UInt(fused.arguments.input),
            weight: weight, output: 0)
        if isDirect {
            let offset = Int(parts[0].firstColumn) * NibbleEpilogue.size(epilogue.outputType)
            product.outputStride = Int(epilogue.outputStride)
            product.outputElement = epilogue.outputType == NIBBLE_F32 ? .f32 : .init(element)
            product.output = UInt(epilogue.output) + UInt(offset)
            product.addend = epilogue.residual == 0 ? 0 : UInt(epilogue.residual) + UInt(offset)
            return try products.run(product, workspace: scratch, on: stream)
        }
        product.output = try workspace.take(fused.tokens * slab.rowCount * 4)
        guard try products.run(product, workspace: scratch, on: stream) else { return false }
        func results(_ part: NibbleLinearLayer) -> UInt64 {
            UInt64(product.output) + UInt64(4 * (part.firstColumn - parts[0].firstColumn))
        }
        let outputs = changed.map { index in
            AdapterOutputs(layer: slab.pieces[index].part, rows: slab.pieces[index].rows, deltas: results(parts[index]))
        }
        if !outputs.isEmpty {
            try expand(fused, 0..<fused.tokens, outputs, stride: slab.rowCount, isInPlace: true)
        }
        for part in parts {
            let arguments = NibbleFinishArguments(
                products: results(part), bias: part.bias, epilogue: epilogue, productStride: Int64(slab.rowCount),
                tokens: Int32(fused.tokens),
                columns: part.outFeatures, firstColumn: part.firstColumn, unused: 0)
            let grid = Grid(x: fused.tokens, y: blocks(Int(part.outFeatures), per: 8 * 256))
            try launch(.finishLinear, grid: grid, block: 256, arguments)
        }
        return true
    }
}

extension WeightSlab {
    /// Whether the next layer's outputs follow those of the slab.
    fileprivate func endsWithWholeLayer(_ fused: FusedLayers) -> Bool {
        pieces.allSatisfy { $0.rows.count == fused.layer($0.part).outFeatures }
    }
}

extension FusedLayers {
    func layer(_ index: Int) -> Linear { layers[layers.startIndex + index] }

    func part(_ index: Int) -> NibbleLinearLayer {
        withUnsafeBytes(of: arguments.parts) { $0.bindMemory(to: NibbleLinearLayer.self)[index] }
    }

    /// Rows of a part whose weight lies at `weight` as floats.
    func part(_ index: Int, rows: Range<Int>, weight: UInt64) -> NibbleLinearLayer {
        let whole = part(index)
        var part = NibbleLinearLayer()
        part.weight = weight
        part.bias = whole.bias == 0 ? 0 : whole.bias + UInt64(rows.lowerBound * 4)
        part.outFeatures = Int32(rows.count)
        part.firstColumn = whole.firstColumn + Int32(rows.lowerBound)
        return part
    }
}

func greatestCommonDivisor(_ a: Int, _ b: Int) -> Int {
    var (a, b) = (a, b)
    while b != 0 { (a, b) = (b, a % b) }
    return max(a, 1)
}
