internal import CNibbleCPU
package import NibbleCore

extension CPUBackend {
    package func convolve(_ call: ConvolutionCall, _ batch: BatchIndices, into output: Tensor) throws {
        let (channels, taps) = (call.weight.shape[0], call.weight.shape.last)
        precondition((2...Int(nibble_largest_taps)).contains(taps), "a convolution of length \(taps)")
        precondition(output.count == batch.tokenCount * channels, "convolution by \(call.weight) into \(output)")
        let rows = call.input.tensor.shape[0]
        for first in [call.input.first, call.inputGate, call.outputGate].compactMap(\.self) {
            precondition(
                rows == batch.tokenCount && first >= 0 && first + channels <= call.input.tensor.shape.last,
                "\(channels) columns from \(first) of \(call.input.tensor)")
        }
        let columns = call.input.kernelArguments
        let (activation, parameter) = call.activation.kernelCode
        withRows(batch, state: call.state.inputs, entries: channels * (taps - 1)) { rows in
            let arguments = nibble_convolve_arguments(
                kernels: pool.kernels, rows: rows, input: columns,
                input_gate: call.inputGate.map { call.input.tensor.floats + $0 },
                output_gate: call.outputGate.map { call.input.tensor.floats + $0 }, weight: call.weight.floats,
                bias: call.bias?.floats, inputs: call.state.inputs.mutableFloats, out: output.mutableFloats, channels: channels,
                taps: taps, activation: activation, parameter: parameter)
            let block = Int(nibble_channel_block)
            let grain = ThreadPool.grain(elementsPerItem: 8 * block * batch.maximumQueryLength)
            pool.run(
                count: batch.rowCount * ((channels + block - 1) / block), grain: grain, isDynamic: true, arguments,
                nibble_convolve_task)
        }
    }

    package func gatedDelta(_ call: GatedDeltaCall, _ batch: BatchIndices, into output: Tensor) throws {
        let (keys, values, heads) = (call.keySize, call.valueSize, call.valueHeads)
        let limit = Int(nibble_largest_state_size)
        precondition(
            (1...limit).contains(keys) && (1...limit).contains(values) && heads % call.keyHeads == 0,
            "the gated delta rule with \(call.keyHeads) heads of \(keys) and \(heads) of \(values)")
        precondition(
            output.count == batch.tokenCount * heads * values
                && call.mixed.count == batch.tokenCount * (2 * call.keyHeads * keys + heads * values),
            "the gated delta rule of \(call.mixed) into \(output)")
        guard let matrix = call.state.matrix else { preconditionFailure("the gated delta rule without a state") }
        withRows(batch, state: matrix, entries: heads * keys * values) { rows in
            let slice = recurrentSlice(values, batch)
            let arguments = nibble_gated_delta_arguments(
                kernels: pool.kernels, rows: rows, mixed: Columns(call.mixed).kernelArguments, a: call.a.kernelArguments,
                b: call.b.kernelArguments, rate: call.rate.floats, time_bias: call.timeBias.floats,
                matrix: matrix.mutableFloats, out: output.mutableFloats, key_heads: call.keyHeads, value_heads: heads,
                key_size: keys, value_size: values, slice: slice)
            pool.run(
                count: batch.rowCount * heads * ((values + slice - 1) / slice), isDynamic: true, arguments,
                nibble_gated_delta_task)
        }
    }

    package func stateSpace(_ call: StateSpaceCall, _ batch: BatchIndices, into output: Tensor) throws {
        let (size, heads) = (call.headSize, call.heads)
        precondition(
            size > 0 && call.stateSize > 0 && heads % call.groups == 0,
            "a state space model of \(heads) heads in \(call.groups) groups")
        precondition(
            output.count == batch.tokenCount * heads * size
                && call.mixed.count == batch.tokenCount * (heads * size + 2 * call.groups * call.stateSize),
            "the state space model of \(call.mixed) into \(output)")
        guard let matrix = call.state.matrix else { preconditionFailure("a state space model without a state") }
        withRows(batch, state: matrix, entries: heads * size * call.stateSize) { rows in
            let slice = recurrentSlice(size, batch)
            let arguments = nibble_state_space_arguments(
                kernels: pool.kernels, rows: rows, mixed: Columns(call.mixed).kernelArguments, dt: call.dt.kernelArguments,
                rate: call.rate.floats, time_bias: call.timeBias.floats, skip: call.skip.floats, matrix: matrix.mutableFloats,
                out: output.mutableFloats, heads: heads, head_size: size, groups: call.groups, state_size: call.stateSize,
                slice: slice, least_time: call.timeLimits.lowerBound, largest_time: call.timeLimits.upperBound,
                time_scale: call.timeScale)
            pool.run(
                count: batch.rowCount * heads * ((size + slice - 1) / slice), isDynamic: true, arguments,
                nibble_state_space_task)
        }
    }

    package func normalizeGated(_ call: GatedNormCall, into output: Tensor) throws {
        let (columns, width) = (call.input.shape.last, call.runWidth)
        precondition(
            width > 0 && columns % width == 0 && output.count == call.input.count && call.gateLayout.groupSize > 0,
            "gated norm of \(call.input) in runs of \(width) into \(output)")
        let weights = call.norm?.weightCount ?? width
        precondition(weights == width || weights == columns, "\(weights) weights for runs of \(width) of \(columns)")
        let runs = columns / width
        let (activation, parameter) = call.gateActivation.kernelCode
        let arguments = nibble_gated_norm_arguments(
            kernels: pool.kernels, input: call.input.floats, gate: Columns(call.gate).kernelArguments,
            out: output.mutableFloats, width: width, runs: runs, layout: call.gateLayout.kernelArguments,
            norm: call.norm?.kernelArguments ?? nibble_norm(), weight_stride: weights == columns ? width : 0,
            has_norm: call.norm == nil ? 0 : 1, gate_first: call.gateFirst ? 1 : 0, activation: activation,
            parameter: parameter, gate_scale: call.gateScale)
        pool.run(
            count: call.input.count / width, grain: ThreadPool.grain(elementsPerItem: 4 * width), arguments,
            nibble_gated_norm_task)
    }

    /// Elements of a head that an item handles. In a prompt, they are few enough that their part of the state stays in the
    /// first-level cache; a single token reads the state in its order.
    private func recurrentSlice(_ size: Int, _ batch: BatchIndices) -> Int {
        batch.maximumQueryLength > 1 ? min(size, Int(nibble_delta_slice)) : size
    }

    /// Runs `body` with the rows of a call whose states have `entries` numbers a block.
    /// - Precondition: the blocks of all rows are blocks of the table and of `state`.
    private func withRows(_ batch: BatchIndices, state: Tensor, entries: Int, _ body: (nibble_recurrent_rows) -> Void) {
        precondition(state.count % entries == 0, "\(state) for states of \(entries) numbers")
        var outOfRange: Int32 = 0
        withUnsafeMutablePointer(to: &outOfRange) { flag in
            body(
                nibble_recurrent_rows(
                    query_offsets: batch.queryOffsets.integers, lengths: batch.lengths.integers,
                    block_table: batch.blockTable.integers, rows: batch.rowCount,
                    table_width: batch.blockTable.count / max(batch.rowCount, 1), blocks: state.count / entries,
                    out_of_range: flag))
        }
        precondition(outOfRange == 0, "a row's state lies outside the block table or the states")
    }
}

extension Columns {
    fileprivate var kernelArguments: nibble_columns {
        nibble_columns(first: tensor.floats + first, width: tensor.shape.last)
    }
}
