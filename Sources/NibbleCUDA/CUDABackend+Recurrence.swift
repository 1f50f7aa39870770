internal import CNibbleCUDA
package import NibbleCore

extension CUDABackend {
    package func convolve(_ call: ConvolutionCall, _ batch: BatchIndices, into output: Tensor) throws {
        try perform {
            let (channels, taps) = (call.weight.shape[0], call.weight.shape.last)
            precondition((2...Int(NIBBLE_CONVOLVE_MAX_TAPS)).contains(taps), "a convolution of length \(taps)")
            var arguments = NibbleConvolveArguments()
            arguments.rows = stateRows(batch, call.state.inputs, entries: channels * (taps - 1))
            arguments.input = try columns(call.input, "a convolution")
            func gate(_ first: Int?) -> UInt64 {
                first.map { call.input.tensor.pointer + UInt64($0 * call.input.tensor.dtype.byteCount) } ?? 0
            }
            arguments.inputGate = gate(call.inputGate)
            arguments.outputGate = gate(call.outputGate)
            arguments.weight = call.weight.pointer
            arguments.bias = call.bias.pointer
            arguments.inputs = call.state.inputs.pointer
            arguments.output = output.pointer
            arguments.channels = Int32(channels)
            arguments.taps = Int32(taps)
            (arguments.activation, arguments.activationParameter) = call.activation.code
            arguments.outputType = try element(output.dtype, for: "a convolution").code
            let grid = Grid(
                x: blocks(channels, per: NIBBLE_CONVOLVE_CHANNELS),
                y: blocks(batch.maximumQueryLength, per: NIBBLE_CONVOLVE_TOKENS), z: batch.rowCount)
            try launch(.convolve, grid: grid, block: Int(NIBBLE_CONVOLVE_CHANNELS), arguments)
        }
    }

    package func gatedDelta(_ call: GatedDeltaCall, _ batch: BatchIndices, into output: Tensor) throws {
        try perform {
            let kernel = try kernel(.gatedDelta(stateSize: call.keySize), size: call.keySize)
            guard let matrix = call.state.matrix else { preconditionFailure("the gated delta rule without a state") }
            var arguments = NibbleDeltaArguments()
            arguments.rows = stateRows(batch, matrix, entries: call.valueHeads * call.keySize * call.valueSize)
            arguments.mixed = try columns(Columns(call.mixed), "the gated delta rule")
            arguments.a = try columns(call.a, "the gated delta rule")
            arguments.b = try columns(call.b, "the gated delta rule")
            arguments.rate = call.rate.pointer
            arguments.timeBias = call.timeBias.pointer
            arguments.matrix = matrix.pointer
            arguments.output = output.pointer
            arguments.keyHeads = Int32(call.keyHeads)
            arguments.valueHeads = Int32(call.valueHeads)
            arguments.keySize = Int32(call.keySize)
            arguments.valueSize = Int32(call.valueSize)
            arguments.outputType = try element(output.dtype, for: "the gated delta rule").code
            let slices = blocks(call.valueSize, per: NIBBLE_DELTA_COLUMNS)
            try launch(
                kernel, grid: Grid(x: call.valueHeads * slices, y: batch.rowCount), block: Int(NIBBLE_STATE_THREADS), arguments)
        }
    }

    package func stateSpace(_ call: StateSpaceCall, _ batch: BatchIndices, into output: Tensor) throws {
        try perform {
            let kernel = try kernel(.stateSpace(stateSize: call.stateSize), size: call.stateSize)
            guard let matrix = call.state.matrix else { preconditionFailure("a state space model without a state") }
            var arguments = NibbleScanArguments()
            arguments.rows = stateRows(batch, matrix, entries: call.heads * call.headSize * call.stateSize)
            arguments.mixed = try columns(Columns(call.mixed), "a state space model")
            arguments.dt = try columns(call.dt, "a state space model")
            arguments.rate = call.rate.pointer
            arguments.timeBias = call.timeBias.pointer
            arguments.skip = call.skip.pointer
            arguments.matrix = matrix.pointer
            arguments.output = output.pointer
            arguments.heads = Int32(call.heads)
            arguments.headSize = Int32(call.headSize)
            arguments.groups = Int32(call.groups)
            arguments.stateSize = Int32(call.stateSize)
            arguments.leastTime = call.timeLimits.lowerBound
            arguments.largestTime = call.timeLimits.upperBound
            arguments.timeScale = call.timeScale
            arguments.outputType = try element(output.dtype, for: "a state space model").code
            let slices = blocks(call.headSize, per: NIBBLE_SCAN_ROWS)
            try launch(
                kernel, grid: Grid(x: call.heads * slices, y: batch.rowCount), block: Int(NIBBLE_STATE_THREADS), arguments)
        }
    }

    package func normalizeGated(_ call: GatedNormCall, into output: Tensor) throws {
        try perform {
            let (columns, width) = (call.input.shape.last, call.runWidth)
            var arguments = NibbleGatedNormArguments()
            arguments.input = call.input.pointer
            arguments.gate = try self.columns(Columns(call.gate), "a gated norm")
            arguments.weight = call.norm?.weight.pointer ?? 0
            arguments.bias = call.norm?.bias.pointer ?? 0
            arguments.output = output.pointer
            arguments.layout = NibbleHeads(call.gateLayout, heads: columns / width)
            arguments.count = Int64(call.input.count / width)
            arguments.runs = Int32(columns / width)
            arguments.width = Int32(width)
            let weights = call.norm.flatMap { $0.weight ?? $0.bias }?.count ?? width
            arguments.weightStride = weights == columns ? Int32(width) : 0
            arguments.norm = call.norm.map { $0.kind == .rms ? 1 : 2 } ?? 0
            arguments.gateFirst = call.gateFirst ? 1 : 0
            (arguments.activation, arguments.activationParameter) = call.gateActivation.code
            arguments.gateScale = call.gateScale
            arguments.epsilon = call.norm?.epsilon ?? 0
            arguments.inputType = try element(call.input.dtype, for: "a gated norm").code
            arguments.outputType = try element(output.dtype, for: "a gated norm").code
            let isNarrow = width <= Int(NIBBLE_GATED_NORM_WARP_WIDTH)
            let block = isNarrow || width <= 1024 ? 128 : width <= 4096 ? 256 : 512
            let runs = Int(arguments.count)
            try launch(.gatedNorm, grid: Grid(x: isNarrow ? blocks(runs, per: block / 32) : runs), block: block, arguments)
        }
    }

    private func kernel(_ instance: Kernel?, size: Int) throws -> Kernel {
        guard let instance else {
            throw BackendError.unsupported(
                device: device, operation: "a recurrent mixer", reason: "its states of \(size) are above \(NIBBLE_STATE_MAX_SIZE)"
            )
        }
        return instance
    }

    private func columns(_ columns: Columns, _ operation: String) throws -> NibbleColumns {
        let tensor = columns.tensor
        return NibbleColumns(
            first: UInt64(tensor.address) + UInt64(columns.first * tensor.dtype.byteCount), stride: Int64(tensor.shape.last),
            type: try element(tensor.dtype, for: operation).code, unused: 0)
    }

    private func stateRows(_ batch: BatchIndices, _ state: Tensor, entries: Int) -> NibbleStateRows {
        NibbleStateRows(
            queryOffsets: batch.queryOffsets.pointer, lengths: batch.lengths.pointer, blockTable: batch.blockTable.pointer,
            blockTableStride: Int32(batch.blockTable.shape.last), blocks: Int32(state.count / entries))
    }
}
