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
            if input.dtype == .float32, preparesItself(group, scratch, hasAdapters: epilogue.adapters != nil) {
                return try linear(
                    input, as: scratch.dtype, prologue: NibblePrologue(norm), group, epilogue: epilogue, activeRows: 0,
                    into: output)
            }
            try activations(input, after: norm, into: scratch)
            try linear(scratch, group, epilogue: epilogue, activeRows: 0, into: output)
        }
    }

    package func linear(
        _ input: Tensor, gatedBy activation: GateActivation, scratch: Tensor, _ group: LinearGroup, epilogue: LinearEpilogue,
        into output: Tensor
    ) throws {
        try perform {
            guard quantizesGated(activation, input, group, scratch, epilogue) else {
                try gate(input, activation, into: scratch)
                return try linear(scratch, group, epilogue: epilogue, activeRows: 0, into: output)
            }
            var prologue = NibblePrologue()
            prologue.kind = NIBBLE_PROLOGUE_SILU
            try linear(input, prologue: prologue, group, epilogue: epilogue, activeRows: 0, into: output)
        }
    }

    /// Whether the kernel that quantizes tokens for int8 layers gates them first.
    private func quantizesGated(
        _ activation: GateActivation, _ input: Tensor, _ group: LinearGroup, _ scratch: Tensor, _ epilogue: LinearEpilogue
    ) -> Bool {
        guard case .product(.silu) = activation, case .int8 = LinearKind(group.layers[0], input: input.dtype) else {
            return false
        }
        return input.dtype == scratch.dtype && epilogue.adapters == nil && preparesItself(group, scratch, hasAdapters: false)
    }

    /// - Parameters:
    ///   - dtype: what the kernels bring a float32 input to, given a prologue.
    ///   - activeRows: address of float32 [T]; rows whose entry is 0 need not be computed. 0: all are.
    func linear(
        _ input: Tensor, as dtype: DType? = nil, prologue: NibblePrologue = NibblePrologue(), _ group: LinearGroup,
        epilogue: LinearEpilogue, activeRows: UInt64, into output: Tensor
    ) throws {
        let dtype = dtype ?? input.dtype
        let tokens = output.count / group.outFeatures
        guard tokens > 0 else { return }
        let target = NibbleEpilogue(epilogue, output: output, columns: group.outFeatures)
        var first = 0
        var column = 0
        while first < group.layers.count {
            let last = endOfRun(group, from: first, dtype)
            var fused = FusedLayers(
                kind: LinearKind(group.layers[first], input: dtype), layers: group.layers[first..<last], input: input,
                dtype: dtype, tokens: tokens, firstColumn: column)
            fused.arguments.epilogue = target
            fused.arguments.activeRows = activeRows
            fused.arguments.prologue = prologue
            let mark = workspace.mark()
            fused.adapterRows = fused.layers.contains { $0.lowRank != nil } ? epilogue.adapters : nil
            form = fused.kind.form.union(fused.adapterRows == nil ? [] : .adapters)
            defer { form = [] }
            try compute(&fused)
            workspace.release(mark)
            column += fused.outFeatures
            first = last
        }
    }

    /// Layers `first ..<` this are of one kind and go through one launch.
    private func endOfRun(_ group: LinearGroup, from first: Int, _ input: DType) -> Int {
        let kind = LinearKind(group.layers[first], input: input)
        let end = min(group.layers.count, first + Int(NIBBLE_MAX_LAYERS))
        return (first + 1..<end).first { LinearKind(group.layers[$0], input: input) != kind } ?? end
    }

    /// Whether the kernels that serve this call can make the activations of its input: 4-bit and dense products of one token, the
    /// staging of tokens before other 4-bit products, and the quantization of rows before an int8 product.
    private func preparesItself(_ group: LinearGroup, _ activations: Tensor, hasAdapters: Bool) -> Bool {
        let dtype = activations.dtype
        guard dtype == .float16 || dtype == .bfloat16, group.inFeatures % 8 == 0,
            endOfRun(group, from: 0, dtype) == group.layers.count
        else { return false }
        let isOne = activations.shape[0] == 1 && !options.isBatchInvariant
        return switch LinearKind(group.layers[0], input: dtype) {
        case .int8(_, let scope, _): scope == .token
        case .canonicalFourBit, .foreign: false
        case .dense(let stored): isOne && stored == dtype && fitsDenseOne(group.inFeatures)
        case .tiledFourBit(_, let compute):
            (compute == dtype || compute.byteCount == dtype.byteCount && !hasAdapters)
                && (isOne
                    ? fitsTiledOne(group.inFeatures)
                    : path(LinearKind(group.layers[0], input: dtype), tokens: activations.shape[0]) != .gemm)
        }
    }

    private func path(_ kind: LinearKind, tokens: Int) -> LinearPath {
        LinearPath.choose(
            kind, tokens: tokens, hasLibrary: products != nil, hasWarpgroups: hasWarpgroups,
            isBatchInvariant: options.isBatchInvariant)
    }

    func fitsDenseOne(_ inFeatures: Int) -> Bool { inFeatures % 8 == 0 && inFeatures * 2 <= sharedMemoryLimit }
    func fitsTiledOne(_ inFeatures: Int) -> Bool { sharedForTiledOne(inFeatures) <= sharedMemoryLimit }

    private func sharedForTiledOne(_ inFeatures: Int) -> Int {
        Int(nibble_tiled_4bit_shared_1(spreadsTable(.gemv4BitTiled), Int32(inFeatures)))
    }

    /// Dynamic shared memory of a product of several tokens with tiled 4-bit weights.
    func sharedForTiled(_ kernel: Kernel, _ element: KernelElement) -> Int {
        element == .f32 ? Int(NIBBLE_TILED_4BIT_SHARED_F32) : Int(nibble_tiled_4bit_shared(spreadsTable(kernel)))
    }

    /// Whether the form of the kernel that is called has the entries of its table apart.
    private func spreadsTable(_ kernel: Kernel) -> Int32 {
        form.intersection(kernel.forms).isDisjoint(with: [.adapters, .mixed])
            ? nibble_spreads_table(Int32(kernels.target.level)) : 0
    }

    private func compute(_ fused: inout FusedLayers) throws {
        if case .foreign = fused.kind { return try foreign(fused) }
        let path = path(fused.kind, tokens: fused.tokens)
        fused.runsBesideSums = runsBesideSums(fused, path)
        // Otherwise the product's first kernel prepares the tokens, or the product does.
        if !fused.runsBesideSums, fused.arguments.prologue.kind == NIBBLE_PROLOGUE_NONE || shrinksAlone(fused) {
            try shrink(&fused)
        }
        switch fused.kind {
        case .dense(let dtype): try dense(&fused, dtype, path)
        case .canonicalFourBit(_, let compute): try fourBit(&fused, compute, path)
        case .tiledFourBit(_, let compute): try tiledFourBit(&fused, compute, path)
        case .int8(let threshold, let scope, let roundsToHalf):
            try int8(&fused, threshold: threshold, scope: scope, roundsToHalf: roundsToHalf, path)
        case .foreign: break
        }
    }

    /// A layout this backend did not make: the canonical bytes serve.
    private func foreign(_ fused: FusedLayers) throws {
        var column = fused.firstColumn
        for layer in fused.layers {
            let canonical = Linear(
                name: layer.name, weight: try layer.weight.canonical(), bias: layer.bias, arithmetic: layer.arithmetic,
                lowRankPlace: layer.lowRankPlace)
            var single = FusedLayers(
                kind: LinearKind(canonical, input: fused.dtype), layers: [canonical], input: fused.input, dtype: fused.dtype,
                tokens: fused.tokens, firstColumn: column)
            guard single.kind != .foreign else {
                throw BackendError.unsupported(
                    device: device, operation: "linear", reason: "\(layer.name) has a layout that this backend did not make")
            }
            single.arguments.epilogue = fused.arguments.epilogue
            single.arguments.activeRows = fused.arguments.activeRows
            single.adapterRows = canonical.lowRank == nil ? nil : fused.adapterRows
            try compute(&single)
            column += layer.outFeatures
        }
    }

    // MARK: Formats

    /// 16-bit weights meet activations of their own type; any other pairing is computed in float32.
    private func dense(_ fused: inout FusedLayers, _ dtype: DType, _ path: LinearPath) throws {
        let compute = fused.dtype == dtype ? dtype : .float32
        let element = try element(compute, for: "linear")
        try setInput(&fused, compute)
        if fused.tokens == 1, compute == dtype, element != .f32, fitsDenseOne(fused.inFeatures), !options.isBatchInvariant {
            return try denseOne(&fused, element)
        }
        if compute == dtype, servesFew(fused, element) {
            try addAdapters(&fused)
            return try launch(
                .denseFew, element, grid: Grid(x: fused.blocks(per: NIBBLE_DENSE_FEW_ROWS)),
                block: Int(NIBBLE_DENSE_FEW_THREADS), fused.arguments)
        }
        if compute == dtype, case .gemv = path {
            try addAdapters(&fused)
            return try inSlices(fused, of: Int(NIBBLE_GEMV_MAX_M)) { slice in
                try launch(
                    .gemv, element, grid: Grid(x: fused.blocks(per: NIBBLE_GEMV_ROWS)), block: Int(NIBBLE_GEMV_THREADS), slice)
            }
        }
        try gemm(fused, element, isStored: compute == dtype)
    }

    /// Whether `linear_dense_few.cu` serves: up to eight tokens, and so few outputs that a library's product would divide K and
    /// need further kernels for its parts.
    private func servesFew(_ fused: FusedLayers, _ element: KernelElement) -> Bool {
        element != .f32 && (element == .f16 || kernels.target.level >= 80) && !options.isBatchInvariant
            && (3...8).contains(fused.tokens) && fused.inFeatures % 8 == 0 && fused.outFeatures <= 64 * card.multiprocessors
    }

    /// One token: warps take pairs of rows in turn.
    private func denseOne(_ fused: inout FusedLayers, _ element: KernelElement) throws {
        try addAdapters(&fused, folds: true)
        let pairs = fused.layers.reduce(0) { $0 + ($1.outFeatures + 1) / 2 }
        let (threads, shared) = (Int(NIBBLE_GEMV_SINGLE_THREADS), fused.inFeatures * 2)
        let grid = min(blocks(pairs, per: threads / 32), try residentBlocks(.gemvSingle, element, block: threads, shared: shared))
        try launch(.gemvSingle, element, grid: Grid(x: grid), block: threads, shared: shared, fused.arguments)
    }

    private func fourBit(_ fused: inout FusedLayers, _ compute: DType, _ path: LinearPath) throws {
        let element = try element(compute, for: "linear")
        try setInput(&fused, compute)
        guard case .gemv = path else { return try gemm(fused, element, isStored: false) }
        try addAdapters(&fused)
        try inSlices(fused, of: Int(NIBBLE_GEMV_4BIT_MAX_M)) { slice in
            try launch(
                .gemv4Bit, element, grid: Grid(x: fused.blocks(per: NIBBLE_GEMV_4BIT_ROWS)), block: Int(NIBBLE_GEMV_4BIT_THREADS),
                slice)
        }
    }

    private func tiledFourBit(_ fused: inout FusedLayers, _ compute: DType, _ path: LinearPath) throws {
        let element = try element(compute, for: "linear")
        if readsOther(fused, compute, path) { form.insert(.mixed) } else { try setInput(&fused, compute) }
        if case .wide = path { return try wideFourBit(&fused, element) }
        let shared = sharedForTiled(.gemm4BitTiled8, element)
        guard case .tiled = path, shared <= sharedMemoryLimit else { return try gemm(fused, element, isStored: false) }
        if fused.tokens == 1, element != .f32, fitsTiledOne(fused.inFeatures), !options.isBatchInvariant {
            return try tiledOne(&fused, element)
        }
        let staged = nibble_staged_4bit_bytes(Int64(fused.tokens), Int64(fused.inFeatures), element == .f32 ? 1 : 0)
        fused.arguments.staged = UInt64(try workspace.take(Int(staged)))
        let threads = Int(NIBBLE_TILED_4BIT_THREADS)
        try keepTokens(&fused)
        try launch(.stage4Bit, element, grid: Grid(x: fused.tokens), block: threads, fused.arguments)
        try addAdapters(&fused)
        if fused.tokens <= 8 || element == .f32 {
            let resident = try residentBlocks(.gemm4BitTiled8, element, block: threads, shared: shared)
            let grid = Grid(x: min(fused.blocks(per: 16), resident), y: blocks(fused.tokens, per: 8))
            return try launch(.gemm4BitTiled8, element, grid: grid, block: threads, shared: shared, fused.arguments)
        }
        let (kernel, tile): (Kernel, Int) =
            fused.tokens <= 16 ? (.gemm4BitTiled16, 16) : fused.tokens <= 32 ? (.gemm4BitTiled32, 32) : (.gemm4BitTiled64, 64)
        try launch(
            kernel, element, grid: Grid(x: fused.blocks(per: 32), y: blocks(fused.tokens, per: tile)), block: threads,
            shared: shared, fused.arguments)
    }

    /// One token: as many blocks as the card holds take tiles of 16 rows in turn. Where there are only a few tiles and kernels
    /// overlap, one block of two teams a multiprocessor serves.
    private func tiledOne(_ fused: inout FusedLayers, _ element: KernelElement) throws {
        let tiles = fused.blocks(per: 16)
        if suitsSingle(fused) {
            return try launch(
                .gemv4BitSingle, element, grid: Grid(x: min(tiles, card.multiprocessors)), block: Int(NIBBLE_SINGLE_4BIT_THREADS),
                shared: Int(NIBBLE_SINGLE_4BIT_SHARED), fused.arguments)
        }
        if fused.runsBesideSums { try shrinkBeside(&fused) } else { try addAdapters(&fused, folds: true) }
        let shared = sharedForTiledOne(fused.inFeatures)
        if isForFewTiles(fused) {
            return try launch(
                .gemv4BitTiledFew, element, grid: Grid(x: blocks(tiles, per: 2)), block: Int(NIBBLE_TILED_4BIT_FEW_THREADS),
                shared: shared, fused.arguments)
        }
        let threads = Int(NIBBLE_TILED_4BIT_THREADS)
        let resident = try residentBlocks(.gemv4BitTiled, element, block: threads, shared: shared)
        try launch(
            .gemv4BitTiled, element, grid: Grid(x: min(tiles, resident)), block: threads, shared: shared, fused.arguments)
    }

    /// Whether gemv_4bit_single serves one token.
    private func suitsSingle(_ fused: FusedLayers) -> Bool {
        guard case .tiledFourBit(let format, _) = fused.kind else { return false }
        return hasWarpgroups && canOverlap && !form.contains(.mixed) && !format.isNested && format.codebook != .mxfp4
            && fused.adapterRows == nil
            && fused.arguments.activeRows == 0 && nibble_single_4bit_supports(Int32(fused.inFeatures)) != 0
    }

    /// Whether gemv_4bit_tiled_few serves one token.
    func isForFewTiles(_ fused: FusedLayers) -> Bool { canOverlap && fused.blocks(per: 16) <= 2 * card.multiprocessors }

    // MARK: Input

    /// Converts the input to `dtype` if it has another type.
    private func setInput(_ fused: inout FusedLayers, _ dtype: DType) throws {
        fused.elementSize = dtype.byteCount
        guard fused.dtype != dtype else { return }
        let converted = try workspace.take(fused.input.count * dtype.byteCount)
        try convert(
            fused.input.address, element(fused.dtype, for: "linear").code, to: converted,
            element(dtype, for: "linear").code, count: fused.input.count)
        fused.arguments.input = UInt64(converted)
    }

    /// Whether the kernels that read the tokens of a 4-bit product bring them from the other 16-bit type to `compute`.
    private func readsOther(_ fused: FusedLayers, _ compute: DType, _ path: LinearPath) -> Bool {
        if case .gemm = path { return false }
        return fused.dtype != compute && fused.dtype.byteCount == 2 && compute.byteCount == 2 && fused.inFeatures % 8 == 0
            && fused.adapterRows == nil
    }

    /// Calls `body` with the arguments for `size` tokens at a time.
    func inSlices(_ fused: FusedLayers, of size: Int, _ body: (NibbleLinearArguments) throws -> Void) throws {
        try inSlices(fused, of: size) { slice, _ in try body(slice) }
    }

    func inSlices(_ fused: FusedLayers, of size: Int, _ body: (NibbleLinearArguments, Range<Int>) throws -> Void) throws {
        for first in stride(from: 0, to: fused.tokens, by: size) {
            let tokens = first..<min(first + size, fused.tokens)
            try body(fused.slice(first, tokens.count), tokens)
        }
    }
}

/// Layers of one kind that share a launch, with the arguments of their kernel.
struct FusedLayers {
    let kind: LinearKind
    let layers: ArraySlice<Linear>
    let input: Tensor
    /// The input's dtype as the products see it: its own, or the one a prologue converts it to.
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
    /// `nil`: no adapter changes these layers.
    var adapterRows: AdapterRows?
    /// Made of ``adapterRows`` once the tokens are prepared.
    var adapters: AdapterSums?
    /// See ``CUDABackend/runsBesideSums(_:_:)``.
    var runsBesideSums = false

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
        arguments.layerCount = Int32(layers.count)
        arguments.tokens = Int32(tokens)
        arguments.inFeatures = Int32(inFeatures)
        if case .canonicalFourBit(let format, _) = kind { setFormat(format) }
        if case .tiledFourBit(let format, _) = kind { setFormat(format) }
        for (index, layer) in layers.enumerated() {
            setPart(index, NibbleLinearLayer(layer, firstColumn: firstColumn + outFeatures))
            outFeatures += layer.outFeatures
        }
    }

    private mutating func setFormat(_ format: FourBitFormat) {
        arguments.blockSizeLog2 = format.blockSizeLog2
        arguments.codebook = format.codebook.code
    }

    private mutating func setPart(_ index: Int, _ part: NibbleLinearLayer) {
        change(index) { $0 = part }
    }

    mutating func change(_ index: Int, _ body: (inout NibbleLinearLayer) -> Void) {
        withUnsafeMutableBytes(of: &arguments.parts) { parts in body(&parts.bindMemory(to: NibbleLinearLayer.self)[index]) }
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
        withUnsafeMutableBytes(of: &slice.parts) { parts in
            for index in layers.indices.map({ $0 - layers.startIndex }) {
                parts.bindMemory(to: NibbleLinearLayer.self)[index].lowRank.skip(tokens: first)
            }
        }
        slice.epilogue.advance(first)
        return slice
    }
}

extension UInt64 {
    /// Advances an address; 0 stays 0.
    mutating func advance(_ byteCount: Int) {
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

extension NibbleLinearLayer {
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
        case .prepared(let tiled as TensorCoreFourBitWeight): self.init(tiled: tiled.weight)
        case .prepared: self.init()
        }
        outFeatures = Int32(layer.outFeatures)
        bias = layer.bias.pointer
        self.firstColumn = Int32(firstColumn)
    }
}

extension GateActivation {
    /// The kernels' number, its parameter, and alpha of the clamped GLU.
    var code: (function: Int32, parameter: Float, alpha: Float) {
        switch self {
        case .product(let activation): (activation.code.0, activation.code.1, 1)
        case .clampedGLU(let limit, let alpha): (NIBBLE_CLAMPED_GLU, limit, alpha)
        }
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
