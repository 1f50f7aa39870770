internal import CNibbleCPU
package import NibbleCore

extension CPUBackend {
    package func linear(_ input: Tensor, _ group: LinearGroup, epilogue: LinearEpilogue, into output: Tensor) throws {
        precondition(input.dtype == .float32 && output.dtype == .float32, "the CPU's activations are float32")
        let rows = group.inFeatures == 0 ? 0 : input.count / group.inFeatures
        precondition(output.count == rows * group.outFeatures, "\(output) for \(rows) rows of \(group.outFeatures)")
        guard rows > 0, group.outFeatures > 0 else { return }

        var call = nibble_linear_arguments()
        call.kernels = pool.kernels
        call.x = input.floats
        call.T = rows
        call.K = group.inFeatures
        call.output = output.mutableFloats
        call.output_stride = group.outFeatures
        call.setEpilogue(epilogue, stride: group.outFeatures)
        call.batch_invariant = isBatchInvariant
        let usesAdapters = epilogue.adapters != nil && group.hasLowRank
        if usesAdapters { call.setAdapters(epilogue.adapters) }
        try withUnsafeTemporaryAllocation(of: nibble_linear_layer.self, capacity: group.layers.count) { layers in
            try multiply(&call, group, layers, usesAdapters: usesAdapters)
        }
        withExtendedLifetime((input, group, epilogue, output)) {}
    }

    /// Consecutive layers that multiply their input in the same form share a call.
    private func multiply(
        _ call: inout nibble_linear_arguments, _ group: LinearGroup, _ layers: UnsafeMutableBufferPointer<nibble_linear_layer>,
        usesAdapters: Bool
    ) throws {
        var column = 0
        var first = 0
        while first < group.layers.count {
            let form = InputForm(group.layers[first], kernels: pool.kernels)
            var end = first
            // An adapter may be detached while the call runs.
            var sums: [LowRank] = []
            call.ranks = 0
            while end < group.layers.count, InputForm(group.layers[end], kernels: pool.kernels) == form {
                let layer = group.layers[end]
                layers.initializeElement(at: end, to: try description(of: layer, column: column))
                if usesAdapters, let lowRank = layer.lowRank {
                    sums.append(lowRank)
                    layers[end].low_rank = try nibble_low_rank(lowRank, first: call.ranks) { try kernelDType($0, for: "linear") }
                    call.ranks += lowRank.ranks
                }
                column += layer.outFeatures
                end += 1
            }
            call.layers = layers.baseAddress.map { UnsafePointer($0 + first) }
            call.layer_count = end - first
            call.setForm(form)
            try withExtendedLifetime(sums) { try run(&call) }
            first = end
        }
    }

    private func run(_ call: inout nibble_linear_arguments) throws {
        try pool.exclusively {
            let threads = Int32(pool.threadCount)
            nibble_linear_bind(&call, try linearScratch.bytes(nibble_linear_workspace(&call, threads)), threads)
            if nibble_linear_needs_input(&call) {
                nibble_linear_find_columns(&call)
                pool.run(count: call.T, context: &call, task: nibble_linear_input_task)
            }
            let rankUnits = nibble_linear_rank_units(&call)
            if rankUnits > 0 { pool.run(count: rankUnits, context: &call, task: nibble_linear_rank_task) }
            pool.run(count: nibble_linear_tiles(&call), context: &call, task: nibble_linear_task)
        }
    }

    func description(of layer: Linear, column: Int) throws -> nibble_linear_layer {
        var description = nibble_linear_layer()
        description.N = layer.outFeatures
        description.column = column
        description.bias = layer.bias?.floats
        switch layer.weight {
        case .dense(let tensor):
            description.kind = NIBBLE_WEIGHT_DENSE
            description.dtype = try kernelDType(tensor.dtype, for: "linear")
            description.values = tensor.pointer
        case .fourBit(let weight):
            description.setFourBit(weight, kind: NIBBLE_WEIGHT_4BIT)
        case .int8(let weight):
            description.kind = NIBBLE_WEIGHT_INT8
            description.values = weight.values.pointer
            description.scales = weight.scales.floats
        case .prepared(let weight):
            guard let weight = weight as? CPUFourBitTiles else {
                throw unsupported("linear", "\(layer.name) was prepared for another device")
            }
            description.setFourBit(weight.tiled, kind: NIBBLE_WEIGHT_4BIT_TILED)
        }
        return description
    }
}

/// The form in which a layer multiplies its input.
struct InputForm: Equatable {
    var kind = NIBBLE_INPUT_F32
    var threshold: Float = 0
    var sharesColumns = false
    var roundsToHalf = false
    var halfPrecision = false
    /// Columns of a run that share a scale; 0 for other forms than int8 runs.
    var block = 0

    init(_ layer: Linear, kernels: OpaquePointer) {
        self.init(layer.weight.format, layer.arithmetic, inFeatures: layer.inFeatures, kernels: kernels)
    }

    init(_ format: WeightFormat, _ arithmetic: LinearArithmetic, inFeatures: Int, kernels: OpaquePointer) {
        switch format {
        case .dense: break
        case .fourBit(let format):
            if arithmetic.allowsInt8Activations {
                block = nibble_linear_input_block(kernels, inFeatures, format.blockSize)
            }
            if block > 0 {
                kind = NIBBLE_INPUT_INT8_RUNS
                return
            }
            switch arithmetic.computeDType {
            case .float16: kind = NIBBLE_INPUT_F16
            case .bfloat16: kind = NIBBLE_INPUT_BF16
            default: halfPrecision = arithmetic.computeDType == nil && arithmetic.allowsHalfPrecision
            }
        case .int8:
            kind = NIBBLE_INPUT_INT8
            threshold = arithmetic.outlierThreshold
            sharesColumns = arithmetic.outlierScope == .call
            roundsToHalf = arithmetic.roundsActivationsToHalf
        }
    }
}

extension nibble_linear_layer {
    fileprivate mutating func setFourBit(_ weight: FourBitWeight, kind: nibble_weight_kind) {
        self.kind = kind
        codebook = weight.format.codebook.kernel
        block_size = weight.format.blockSize
        values = weight.codes.pointer
        switch weight.scales {
        case .plain(let absmax):
            scales = absmax.floats
        case .nested(let nested):
            scale_codes = nested.codes.pointer.assumingMemoryBound(to: UInt8.self)
            nested_absmax = nested.absmax.floats
            nested_offset = nested.offset
        case .exponents(let exponents):
            scale_codes = exponents.pointer.assumingMemoryBound(to: UInt8.self)
        }
    }
}

extension nibble_low_rank {
    fileprivate init(_ lowRank: LowRank, first: Int, code: (DType) throws -> Int32) throws {
        self.init()
        ranks = lowRank.ranks
        a = lowRank.a.pointer
        a_dtype = try code(lowRank.a.dtype)
        b = lowRank.b.pointer
        b_dtype = try code(lowRank.b.dtype)
        scales = lowRank.scales.floats
        adapters = lowRank.adapters.integers
        biases = lowRank.biases?.floats
        gains = lowRank.gains?.floats
        self.first = first
    }
}

extension nibble_linear_arguments {
    fileprivate mutating func setAdapters(_ rows: AdapterRows?) {
        guard let rows else { return }
        adapter_weights = rows.weights.floats
        adapter_stride = rows.weights.shape.last
        adapter_slots = rows.slots?.integers
    }

    mutating func setForm(_ form: InputForm) {
        self.form = form.kind
        half_precision = form.halfPrecision
        input_block = form.block
        threshold = form.threshold
        shares_outlier_columns = form.sharesColumns
        rounds_to_half = form.roundsToHalf
    }

    mutating func setEpilogue(_ epilogue: LinearEpilogue, stride: Int) {
        scale = epilogue.scale
        row_scale = epilogue.rowScale?.floats
        residual = epilogue.residual?.floats
        residual_stride = stride
        (activation, parameter) = epilogue.activation.kernelCode
    }
}
