internal import CNibbleCUDA
package import NibbleCore

extension CUDABackend {
    package func linear(
        _ input: Tensor, _ group: LinearGroup, epilogue: LinearEpilogue, into output: Tensor
    ) throws {
        try perform { try linear(input, group, epilogue: epilogue, activeRows: 0, into: output) }
    }

    package func linear(
        _ input: Tensor, after norm: Norm?, scratch: Tensor, _ group: LinearGroup, epilogue: LinearEpilogue, into output: Tensor
    ) throws {
        try perform {
            if input.dtype == .float32, preparesItself(group, scratch) {
                return try linear(
                    input, as: scratch.dtype, prologue: NibblePrologue(norm), group, epilogue: epilogue, activeRows: 0,
                    into: output)
            }
            try activations(input, after: norm, into: scratch)
            try linear(scratch, group, epilogue: epilogue, activeRows: 0, into: output)
        }
    }

    /// - Parameters:
    ///   - dtype: what the kernels bring a float32 input to, given a prologue.
    ///   - activeRows: address of float32 [T]; rows whose entry is 0 need not be computed. 0: all are.
    func linear(
        _ input: Tensor, as dtype: DType? = nil, prologue: NibblePrologue = NibblePrologue(), _ group: LinearGroup,
        epilogue: LinearEpilogue, activeRows: UInt64, into output: Tensor
    ) throws {
        let dtype = dtype ?? input.dtype
        let tokens = input.count / group.inFeatures
        guard tokens > 0 else { return }
        let target = NibbleEpilogue(epilogue, output: output, columns: group.outFeatures)
        var first = 0
        var column = 0
        while first < group.layers.count {
            let last = endOfRun(group, from: first, dtype)
            var run = LinearRun(
                kind: LinearKind(group.layers[first], input: dtype), layers: group.layers[first..<last], input: input,
                dtype: dtype, tokens: tokens, firstColumn: column)
            run.arguments.epilogue = target
            run.arguments.activeRows = activeRows
            run.arguments.prologue = prologue
            let mark = workspace.mark()
            try compute(&run)
            workspace.release(mark)
            column += run.outFeatures
            first = last
        }
    }

    /// Layers `first ..<` this are of one kind and go through one launch.
    private func endOfRun(_ group: LinearGroup, from first: Int, _ input: DType) -> Int {
        let kind = LinearKind(group.layers[first], input: input)
        let end = min(group.layers.count, first + Int(NIBBLE_MAX_PARTS))
        return (first + 1..<end).first { LinearKind(group.layers[$0], input: input) != kind } ?? end
    }

    /// Whether the kernels that serve this call can make the activations of its input: 4-bit and dense products of one token, and
    /// the quantization of rows before an int8 product.
    private func preparesItself(_ group: LinearGroup, _ activations: Tensor) -> Bool {
        let dtype = activations.dtype
        guard dtype == .float16 || dtype == .bfloat16, group.inFeatures % 8 == 0,
            endOfRun(group, from: 0, dtype) == group.layers.count
        else { return false }
        let isOne = activations.shape[0] == 1 && !options.isBatchInvariant
        return switch LinearKind(group.layers[0], input: dtype) {
        case .int8(_, let scope, _): scope == .token
        case .canonical4, .foreign: false
        case .dense(let stored): isOne && stored == dtype && fitsDenseOne(group.inFeatures)
        case .tiled4(_, let compute): isOne && compute == dtype && fitsTiledOne(group.inFeatures)
        }
    }

    private func fitsDenseOne(_ inFeatures: Int) -> Bool { inFeatures % 8 == 0 && inFeatures * 2 <= sharedMemoryLimit }
    private func fitsTiledOne(_ inFeatures: Int) -> Bool { Int(nibble_tiled4_shared(Int32(inFeatures))) <= sharedMemoryLimit }

    private func compute(_ run: inout LinearRun) throws {
        let path = LinearPath.choose(
            run.kind, tokens: run.tokens, hasLibrary: products != nil, isBatchInvariant: options.isBatchInvariant)
        switch run.kind {
        case .dense(let dtype): try dense(&run, dtype, path)
        case .canonical4(_, let compute): try fourBit(&run, compute, path)
        case .tiled4(_, let compute): try tiledFourBit(&run, compute, path)
        case .int8(let threshold, let scope, let roundsToHalf):
            try int8(&run, threshold: threshold, scope: scope, roundsToHalf: roundsToHalf, path)
        case .foreign: try foreign(run)
        }
    }

    /// A layout this backend did not make: the canonical bytes serve.
    private func foreign(_ run: LinearRun) throws {
        var column = run.firstColumn
        for layer in run.layers {
            let canonical = Linear(
                name: layer.name, weight: try layer.weight.canonical(), bias: layer.bias, arithmetic: layer.arithmetic)
            var single = LinearRun(
                kind: LinearKind(canonical, input: run.dtype), layers: [canonical], input: run.input, dtype: run.dtype,
                tokens: run.tokens, firstColumn: column)
            guard single.kind != .foreign else {
                throw BackendError.unsupported(
                    device: device, operation: "linear", reason: "\(layer.name) has a layout that this backend did not make")
            }
            single.arguments.epilogue = run.arguments.epilogue
            single.arguments.activeRows = run.arguments.activeRows
            try compute(&single)
            column += layer.outFeatures
        }
    }

    // MARK: Formats

    /// 16-bit weights meet activations of their own type; any other pairing is computed in float32.
    private func dense(_ run: inout LinearRun, _ dtype: DType, _ path: LinearPath) throws {
        let compute = run.dtype == dtype ? dtype : .float32
        let element = try element(compute, for: "linear")
        try setInput(&run, compute)
        if run.tokens == 1, compute == dtype, element != .f32, fitsDenseOne(run.inFeatures), !options.isBatchInvariant {
            return try denseOne(run, element)
        }
        if compute == dtype, case .rows = path {
            return try inSlices(run, of: Int(NIBBLE_GEMV_MAX_M)) { slice in
                try launch(
                    .gemv, element, grid: Grid(x: run.blocks(per: NIBBLE_GEMV_ROWS)), block: Int(NIBBLE_GEMV_THREADS), slice)
            }
        }
        try matrix(run, element, isStored: compute == dtype)
    }

    /// One token: warps take pairs of rows in turn.
    private func denseOne(_ run: LinearRun, _ element: KernelElement) throws {
        let pairs = run.layers.reduce(0) { $0 + ($1.outFeatures + 1) / 2 }
        let (threads, shared) = (Int(NIBBLE_GEMV1_THREADS), run.inFeatures * 2)
        let grid = min(blocks(pairs, per: threads / 32), try residentBlocks(.gemvOne, element, block: threads, shared: shared))
        try launch(.gemvOne, element, grid: Grid(x: grid), block: threads, shared: shared, run.arguments)
    }

    private func fourBit(_ run: inout LinearRun, _ compute: DType, _ path: LinearPath) throws {
        let element = try element(compute, for: "linear")
        try setInput(&run, compute)
        guard case .rows = path else { return try matrix(run, element, isStored: false) }
        try inSlices(run, of: Int(NIBBLE_GEMV4_MAX_M)) { slice in
            try launch(
                .gemv4, element, grid: Grid(x: run.blocks(per: NIBBLE_GEMV4_ROWS)), block: Int(NIBBLE_GEMV4_THREADS), slice)
        }
    }

    private func tiledFourBit(_ run: inout LinearRun, _ compute: DType, _ path: LinearPath) throws {
        let element = try element(compute, for: "linear")
        try setInput(&run, compute)
        let fits = element != .f32 || Int(NIBBLE_TILED4_SHARED_F32) <= sharedMemoryLimit
        guard case .tiles = path, fits else { return try matrix(run, element, isStored: false) }
        if run.tokens == 1, element != .f32, fitsTiledOne(run.inFeatures), !options.isBatchInvariant {
            return try tiledOne(run, element)
        }
        let staged = nibble_staged4_bytes(Int64(run.tokens), Int64(run.inFeatures), element == .f32 ? 1 : 0)
        run.arguments.staged = UInt64(try workspace.take(Int(staged)))
        let threads = Int(NIBBLE_TILED4_THREADS)
        try launch(.stage4, element, grid: Grid(x: run.tokens), block: threads, run.arguments)
        if run.tokens <= 8 || element == .f32 {
            let shared = Int(element == .f32 ? NIBBLE_TILED4_SHARED_F32 : NIBBLE_TILED4_SHARED)
            let resident = try residentBlocks(.tiledEight4, element, block: threads, shared: shared)
            let grid = Grid(x: min(run.blocks(per: 16), resident), y: blocks(run.tokens, per: 8))
            return try launch(.tiledEight4, element, grid: grid, block: threads, shared: shared, run.arguments)
        }
        let (kernel, tile): (Kernel, Int) =
            run.tokens <= 16 ? (.tiledSixteen4, 16) : run.tokens <= 32 ? (.tiledThirtyTwo4, 32) : (.tiledSixtyFour4, 64)
        try launch(
            kernel, element, grid: Grid(x: run.blocks(per: 32), y: blocks(run.tokens, per: tile)), block: threads,
            shared: Int(NIBBLE_TILED4_SHARED), run.arguments)
    }

    /// One token: as many blocks as the card holds take tiles of 16 rows in turn. Where there are only a few tiles and kernels
    /// overlap, one block of two teams a multiprocessor serves.
    private func tiledOne(_ run: LinearRun, _ element: KernelElement) throws {
        let tiles = run.blocks(per: 16)
        let shared = Int(nibble_tiled4_shared(Int32(run.inFeatures)))
        if canOverlap, tiles <= 2 * card.multiprocessors {
            return try launch(
                .tiledOneFew4, element, grid: Grid(x: blocks(tiles, per: 2)), block: Int(NIBBLE_TILED4_FEW_THREADS),
                shared: shared, run.arguments)
        }
        let threads = Int(NIBBLE_TILED4_THREADS)
        let resident = try residentBlocks(.tiledOne4, element, block: threads, shared: shared)
        try launch(
            .tiledOne4, element, grid: Grid(x: min(tiles, resident)), block: threads, shared: shared, run.arguments)
    }

    // MARK: Input

    /// Gives the run its input in `dtype`.
    private func setInput(_ run: inout LinearRun, _ dtype: DType) throws {
        run.elementSize = dtype.byteCount
        guard run.dtype != dtype else { return }
        let converted = try workspace.take(run.input.count * dtype.byteCount)
        try convert(
            run.input.address, element(run.dtype, for: "linear").code, to: converted,
            element(dtype, for: "linear").code, count: run.input.count)
        run.arguments.input = UInt64(converted)
    }

    /// Calls `body` with the arguments for `size` tokens at a time.
    func inSlices(_ run: LinearRun, of size: Int, _ body: (NibbleLinearArguments) throws -> Void) throws {
        var first = 0
        while first < run.tokens {
            try body(run.slice(first, min(size, run.tokens - first)))
            first += size
        }
    }
}

/// Layers of one kind, with the arguments of their kernel.
struct LinearRun {
    let kind: LinearKind
    let layers: ArraySlice<Linear>
    let input: Tensor
    /// Of the input as the products see it: its own, or what a prologue makes of it.
    let dtype: DType
    let tokens: Int
    /// Where the first layer's outputs begin in the group's row.
    let firstColumn: Int
    let inFeatures: Int
    /// ΣN of these layers.
    private(set) var outFeatures = 0
    /// Bytes of an input element as the kernels see it.
    var elementSize: Int
    var arguments = NibbleLinearArguments()

    init(kind: LinearKind, layers: ArraySlice<Linear>, input: Tensor, dtype: DType, tokens: Int, firstColumn: Int) {
        self.kind = kind
        self.layers = layers
        self.input = input
        self.dtype = dtype
        self.tokens = tokens
        self.firstColumn = firstColumn
        inFeatures = layers.first?.inFeatures ?? 0
        elementSize = dtype.byteCount
        arguments.input = input.pointer
        arguments.partCount = Int32(layers.count)
        arguments.tokens = Int32(tokens)
        arguments.inFeatures = Int32(inFeatures)
        if case .canonical4(let format, _) = kind { setFormat(format) }
        if case .tiled4(let format, _) = kind { setFormat(format) }
        for (index, layer) in layers.enumerated() {
            setPart(index, NibbleLinearPart(layer, firstColumn: firstColumn + outFeatures))
            outFeatures += layer.outFeatures
        }
    }

    private mutating func setFormat(_ format: FourBitFormat) {
        arguments.blockSizeLog2 = format.blockSizeLog2
        arguments.codebook = format.codebook.code
    }

    private mutating func setPart(_ index: Int, _ part: NibbleLinearPart) {
        withUnsafeMutableBytes(of: &arguments.parts) { parts in
            parts.bindMemory(to: NibbleLinearPart.self)[index] = part
        }
    }

    /// Blocks when each takes `rows` rows of one layer.
    func blocks(per rows: Int32) -> Int { layers.reduce(0) { $0 + ($1.outFeatures + Int(rows) - 1) / Int(rows) } }

    /// The arguments for tokens `first ..< first + count` alone.
    func slice(_ first: Int, _ count: Int) -> NibbleLinearArguments {
        guard first > 0 || count < tokens else { return arguments }
        var slice = arguments
        slice.tokens = Int32(count)
        slice.input.advance(first * inFeatures * elementSize)
        slice.quantized.advance(first * Int(slice.quantizedStride))
        slice.rowScales.advance(first * 4)
        slice.outlierCounts.advance(first * 4)
        slice.outlierColumns.advance(first * Int(slice.outlierCapacity) * 4)
        slice.outlierValues.advance(first * Int(slice.outlierCapacity) * 4)
        slice.outlierStarts.advance(first * Int(slice.outlierStartsStride) * 4)
        slice.activeRows.advance(first * 4)
        slice.epilogue.advance(first)
        return slice
    }
}

extension UInt64 {
    /// Moves an address; absent ones stay absent.
    fileprivate mutating func advance(_ byteCount: Int) {
        if self != 0 { self += UInt64(byteCount) }
    }
}

extension NibbleEpilogue {
    init(_ epilogue: LinearEpilogue, output: Tensor, columns: Int) {
        let (activation, parameter) = epilogue.activation.code
        self.init(
            output: output.pointer, residual: epilogue.residual.pointer, rowScale: epilogue.rowScale.pointer,
            outputStride: Int64(columns), residualStride: Int64(columns), scale: epilogue.scale,
            activationParameter: parameter, activation: activation, outputType: output.dtype.code,
            residualType: epilogue.residual?.dtype.code ?? NIBBLE_F32, unused: 0)
    }

    /// Skips `rows` rows of output, residual and row scales.
    mutating func advance(_ rows: Int) {
        output.advance(rows * Int(outputStride) * NibbleEpilogue.size(outputType))
        residual.advance(rows * Int(residualStride) * NibbleEpilogue.size(residualType))
        rowScale.advance(rows * 4)
    }

    /// Whether the product is stored as it is, but for the residual.
    var isPlain: Bool { activation == NIBBLE_IDENTITY && scale == 1 && rowScale == 0 }

    static func size(_ type: Int32) -> Int { type == NIBBLE_F32 ? 4 : 2 }
}

extension NibblePrologue {
    /// Of a float32 input: a norm, or rounding alone.
    init(_ norm: Norm?) {
        self.init()
        kind = NIBBLE_PROLOGUE_ROUND
        guard let norm else { return }
        weight = norm.weight.pointer
        bias = norm.bias.pointer
        epsilon = norm.epsilon
        kind = norm.kind == .layer ? NIBBLE_PROLOGUE_LAYER : NIBBLE_PROLOGUE_RMS
    }
}

extension NibbleLinearPart {
    init(_ layer: Linear, firstColumn: Int) {
        switch layer.weight {
        case .dense(let tensor):
            self.init()
            weight = tensor.pointer
        case .fourBit(let weight): self.init(weight)
        case .int8(let weight):
            self.init()
            self.weight = weight.values.pointer
            scales = weight.scales.pointer
        case .prepared(let tiled as TiledFourBitWeight): self.init(tiled: tiled.weight)
        case .prepared: self.init()
        }
        outFeatures = Int32(layer.outFeatures)
        bias = layer.bias.pointer
        self.firstColumn = Int32(firstColumn)
    }
}

extension Activation {
    /// The kernels' number and the parameter of the soft cap.
    var code: (Int32, Float) {
        switch self {
        case .identity: (NIBBLE_IDENTITY, 0)
        case .relu: (NIBBLE_RELU, 0)
        case .reluSquared: (NIBBLE_RELU_SQUARED, 0)
        case .gelu: (NIBBLE_GELU, 0)
        case .geluTanh: (NIBBLE_GELU_TANH, 0)
        case .quickGelu: (NIBBLE_QUICK_GELU, 0)
        case .silu: (NIBBLE_SILU, 0)
        case .sigmoid: (NIBBLE_SIGMOID, 0)
        case .tanh: (NIBBLE_TANH, 0)
        case .softCap(let cap): (NIBBLE_SOFT_CAP, cap)
        }
    }
}
