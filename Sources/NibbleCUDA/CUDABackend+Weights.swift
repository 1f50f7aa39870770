internal import CNibbleCUDA
package import NibbleCore

extension CUDABackend {
    /// Source bytes that pass through workspace at a time.
    static let chunkBytes = 16 << 20

    package func quantize(_ source: Tensor, to format: WeightFormat) throws -> LinearWeight {
        try perform {
            let shape: Shape = [source.shape[0], source.count / max(source.shape[0], 1)]
            switch format {
            case .dense(let dtype): return .dense(try dense(source, dtype, shape))
            case .fourBit(let format): return .fourBit(try fourBit(source, format, shape))
            case .int8: return .int8(try int8(source, shape))
            }
        }
    }

    package func dequantize(_ weight: LinearWeight, to dtype: DType) throws -> Tensor {
        try perform {
            let output = try memory.allocate(dtype, [weight.outFeatures, weight.inFeatures])
            try dequantizeRows(weight, 0..<weight.outFeatures, as: element(dtype, for: "dequantize"), to: output.address)
            return output
        }
    }

    // MARK: Quantizing

    private func dense(_ source: Tensor, _ dtype: DType, _ shape: Shape) throws -> Tensor {
        let output = try memory.allocate(dtype, shape)
        if source.dtype == dtype {
            try copy(source, to: output.viewed(as: source.shape))
            return output
        }
        let width = dtype.byteCount
        try inChunks(source, multiple: 1, for: "converting a weight") { address, range, element in
            try convert(
                address, element.code, to: output.address + UInt(range.lowerBound * width),
                self.element(dtype, for: "a dense weight").code, count: range.count)
        }
        return output
    }

    private func fourBit(_ source: Tensor, _ format: FourBitFormat, _ shape: Shape) throws -> FourBitWeight {
        let blockCount = blocks(source.count, per: format.blockSize)
        let codes = try memory.allocate(.uint8, [(source.count + 1) / 2])
        let absmax = try memory.allocate(.float32, [blockCount])
        let flags = try NonFiniteFlags(self, chunks: chunkCount(source, multiple: format.blockSize))
        try inChunks(source, multiple: format.blockSize, for: "quantize") { address, range, element in
            let arguments = NibbleQuantize4Arguments(
                input: UInt64(address), codes: codes.pointer + UInt64(range.lowerBound / 2),
                absmax: absmax.pointer + UInt64(range.lowerBound / format.blockSize * 4),
                firstNonFinite: flags.next(range.lowerBound), count: Int64(range.count),
                blockSizeLog2: format.blockSizeLog2, codebook: format.codebook.code)
            let count = blocks(range.count, per: format.blockSize)
            try launch(.quantize4Bit, element, grid: Grid(x: blocks(count, per: NIBBLE_QUANTIZE4_BLOCKS)), block: 256, arguments)
        }
        try flags.check()
        let scales: BlockScales = format.isNested ? .nested(try nested(absmax)) : .plain(absmax)
        return FourBitWeight(
            format: format, outFeatures: shape[0], inFeatures: shape[1], codes: codes, scales: scales,
            sourceDType: source.dtype)
    }

    private func nested(_ absmax: Tensor) throws -> NestedScales {
        let codes = try memory.allocate(.uint8, absmax.shape)
        let outer = try memory.allocate(.float32, [blocks(absmax.count, per: FourBitFormat.nestedBlockSize)])
        let offset = try workspace.take(4)
        let arguments = NibbleNestedArguments(
            absmax: absmax.pointer, offset: UInt64(offset), codes: codes.pointer, nestedAbsmax: outer.pointer,
            count: Int64(absmax.count))
        try launch(.nestedMean, grid: Grid(x: 1), block: 1024, arguments)
        try launch(.nestedQuantize, grid: Grid(x: outer.count), block: 256, arguments)
        var mean: Float = 0
        try withUnsafeMutableBytes(of: &mean) { try download(offset, 4, into: $0) }
        return NestedScales(codes: codes, absmax: outer, offset: mean)
    }

    private func int8(_ source: Tensor, _ shape: Shape) throws -> Int8Weight {
        let (rows, columns) = (shape[0], shape[1])
        let values = try memory.allocate(.int8, shape)
        let scales = try memory.allocate(.float32, [rows])
        let flags = try NonFiniteFlags(self, chunks: chunkCount(source, multiple: columns))
        try inChunks(source, multiple: columns, for: "quantize") { address, range, element in
            let first = range.lowerBound / max(columns, 1)
            let arguments = NibbleQuantize8Arguments(
                input: UInt64(address), values: values.pointer + UInt64(range.lowerBound),
                scales: scales.pointer + UInt64(first * 4), firstNonFinite: flags.next(range.lowerBound),
                outFeatures: Int32(range.count / max(columns, 1)), inFeatures: Int32(columns))
            try launch(.quantizeInt8, element, grid: Grid(x: Int(arguments.outFeatures)), block: 256, arguments)
        }
        try flags.check()
        return Int8Weight(values: values, scales: scales)
    }

    // MARK: Chunks

    /// Elements of a chunk: a multiple of `multiple`, about ``chunkBytes``.
    private func chunkSize(_ source: Tensor, multiple: Int) -> Int {
        let multiple = max(multiple, 1)
        if source.device == device { return max(source.count, 1) }
        return max(CUDABackend.chunkBytes / source.dtype.byteCount / multiple, 1) * multiple
    }

    private func chunkCount(_ source: Tensor, multiple: Int) -> Int {
        blocks(source.count, per: chunkSize(source, multiple: multiple))
    }

    /// Brings the source here, part by part, and calls `body` with each part's address, its elements, and their type.
    private func inChunks(
        _ source: Tensor, multiple: Int, for operation: String, _ body: (UInt, Range<Int>, KernelElement) throws -> Void
    ) throws {
        let element = try element(source.dtype, for: operation)
        let width = source.dtype.byteCount
        let size = chunkSize(source, multiple: multiple)
        let isHere = source.device == device
        let buffer = isHere ? 0 : try workspace.take(min(size, source.count) * width)
        var first = 0
        while first < source.count {
            let range = first..<min(first + size, source.count)
            var address = source.address + UInt(range.lowerBound * width)
            if !isHere {
                allowsOverlap = false
                try staging.copy(hostBytes(of: source, range), to: buffer)
                address = buffer
            }
            try body(address, range, element)
            first = range.upperBound
        }
    }

    private func hostBytes(of source: Tensor, _ range: Range<Int>) throws -> UnsafeRawBufferPointer {
        guard source.device == .cpu else {
            throw BackendError.unsupported(
                device: device, operation: "quantize", reason: "the weight lies on \(source.device), neither here nor on the host"
            )
        }
        let width = source.dtype.byteCount
        return UnsafeRawBufferPointer(rebasing: source.hostBytes[range.lowerBound * width..<range.upperBound * width])
    }

    /// For each chunk, where its first NaN or infinity was found.
    private final class NonFiniteFlags {
        private let backend: CUDABackend
        private let address: UInt
        private let count: Int
        private var starts: [Int] = []

        init(_ backend: CUDABackend, chunks: Int) throws {
            self.backend = backend
            count = chunks
            address = try backend.workspace.take(chunks * 8)
            try backend.fill(address, 0xFF, byteCount: chunks * 8)
        }

        /// The word of the chunk that begins at element `start`.
        func next(_ start: Int) -> UInt64 {
            starts.append(start)
            return UInt64(address) + UInt64((starts.count - 1) * 8)
        }

        /// - Throws: ``BackendError/nonFiniteWeight(index:)``
        func check() throws {
            guard count > 0 else { return }
            var found = [UInt64](repeating: .max, count: count)
            try found.withUnsafeMutableBytes { try backend.download(address, count * 8, into: $0) }
            for (start, index) in zip(starts, found) where index != .max {
                throw BackendError.nonFiniteWeight(index: start + Int(clamping: index))
            }
        }
    }

    // MARK: Dequantizing

    /// Rows of the weight as `element`, row-major, to `output`.
    /// - Precondition: for 4-bit weights, `rows` begins at a multiple of ``rowUnit(_:)``.
    func dequantizeRows(_ weight: LinearWeight, _ rows: Range<Int>, as element: KernelElement, to output: UInt) throws {
        let columns = weight.inFeatures
        switch weight {
        case .dense(let tensor):
            let from = try self.element(tensor.dtype, for: "dequantize")
            let start = tensor.address + UInt(rows.lowerBound * columns * tensor.dtype.byteCount)
            try convert(start, from.code, to: output, element.code, count: rows.count * columns)
        case .fourBit(let weight):
            let part = NibbleLinearLayer(weight, firstRow: rows.lowerBound)
            let size = blocks(rows.count * columns, per: NIBBLE_DEQUANTIZE_ELEMENTS)
            try dequantize(weight, part, rows.count, .dequantize4Bit, size, element, output)
        case .int8(let weight):
            var part = NibbleLinearLayer()
            part.weight = weight.values.pointer + UInt64(rows.lowerBound * columns)
            part.scales = weight.scales.pointer + UInt64(rows.lowerBound * 4)
            part.outFeatures = Int32(rows.count)
            let arguments = NibbleDequantizeArguments(
                part: part, output: UInt64(output), inFeatures: Int32(columns), blockSizeLog2: 0, codebook: 0, unused: 0)
            let grid = Grid(x: blocks(rows.count * columns, per: NIBBLE_DEQUANTIZE_ELEMENTS))
            try launch(.dequantizeInt8, element, grid: grid, block: 256, arguments)
        case .prepared(let tiled as TensorCoreFourBitWeight):
            let part = NibbleLinearLayer(tiled: tiled.weight, firstRow: rows.lowerBound)
            let size = blocks(blocks(rows.count, per: 16) * tiled.weight.tilesAcross, per: 16)
            try dequantize(tiled.weight, part, rows.count, .dequantize4BitTiled, size, element, output)
        case .prepared(let other):
            try dequantizeRows(try other.canonical(), rows, as: element, to: output)
        }
    }

    private func dequantize(
        _ weight: FourBitWeight, _ part: NibbleLinearLayer, _ rows: Int, _ kernel: Kernel, _ size: Int,
        _ element: KernelElement, _ output: UInt
    ) throws {
        var part = part
        part.outFeatures = Int32(rows)
        let arguments = NibbleDequantizeArguments(
            part: part, output: UInt64(output), inFeatures: Int32(weight.inFeatures),
            blockSizeLog2: weight.format.blockSizeLog2, codebook: weight.format.codebook.code, unused: 0)
        try launch(kernel, element, grid: Grid(x: size), block: 256, arguments)
    }
}

extension FourBitFormat {
    var blockSizeLog2: Int32 { Int32(blockSize.trailingZeroBitCount) }
}

extension FourBitFormat.Codebook {
    var code: Int32 {
        switch self {
        case .fp4: NIBBLE_FP4
        case .nf4: NIBBLE_NF4
        case .mxfp4: NIBBLE_MXFP4
        }
    }
}

extension NibbleLinearLayer {
    /// The scales of a 4-bit weight from row `firstRow` on, which begins a block.
    init(_ weight: FourBitWeight, firstRow: Int = 0) {
        self.init()
        let firstBlock = UInt64(firstRow * weight.inFeatures / weight.format.blockSize)
        switch weight.scales {
        case .plain(let absmax): scales = absmax.pointer + firstBlock * 4
        case .nested(let nested):
            nestedCodes = nested.codes.pointer + firstBlock
            nestedAbsmax = nested.absmax.pointer + firstBlock / UInt64(FourBitFormat.nestedBlockSize) * 4
            nestedOffset = nested.offset
        case .exponents(let exponents): nestedCodes = exponents.pointer + firstBlock
        }
        self.weight = weight.codes.pointer + UInt64(firstRow * weight.inFeatures / 2)
        outFeatures = Int32(weight.outFeatures)
    }
}
