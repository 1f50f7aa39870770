internal import CNibbleCPU
package import NibbleCore

extension CPUBackend {
    package func convert(_ source: Tensor, to destination: Tensor) throws {
        precondition(source.count == destination.count, "convert of \(source) to \(destination)")
        guard let from = source.dtype.kernelCode, let to = destination.dtype.kernelCode,
            source.dtype == destination.dtype || destination.dtype.byteCount > 1
        else {
            throw BackendError.unsupported(
                device: device, operation: "convert", reason: "\(source.dtype) to \(destination.dtype)")
        }
        let arguments = nibble_convert_arguments(
            kernels: pool.kernels, source: source.pointer, out: destination.mutablePointer, source_dtype: from, out_dtype: to)
        pool.run(count: source.count, grain: 16384, arguments, nibble_convert_task)
    }

    /// - Precondition: every id and position lies in its table.
    package func embed(_ call: EmbeddingCall, _ batch: BatchIndices, into output: Tensor) throws {
        let width = call.table.shape[1]
        precondition(output.count == batch.tokenCount * width, "embedding of \(call.table) into \(output)")
        let arguments = nibble_embed_arguments(
            kernels: pool.kernels, table: call.table.pointer, position_table: call.positionTable?.pointer,
            tokens: batch.tokens.integers,
            positions: batch.positions.integers, out: output.mutableFloats, width: width,
            scale: call.scale, table_dtype: call.table.dtype.floatCode, position_dtype: call.positionTable?.dtype.floatCode ?? 0)
        for token in 0..<batch.tokenCount {
            let id = Int(arguments.tokens[token])
            precondition(id >= 0 && id < call.table.shape[0], "token id \(id) is outside \(call.table)")
            guard let positions = call.positionTable else { continue }
            let position = Int(arguments.positions[token])
            precondition(position >= 0 && position < positions.shape[0], "position \(position) is outside \(positions)")
        }
        pool.run(
            count: batch.tokenCount, grain: ThreadPool.grain(elementsPerItem: width), arguments, nibble_embed_task)
    }

    package func gate(_ input: Tensor, _ activation: GateActivation, into output: Tensor) throws {
        let width = input.shape.last / 2
        precondition(2 * output.count == input.count, "gate of \(input) into \(output)")
        var arguments = nibble_gate_arguments()
        arguments.kernels = pool.kernels
        arguments.input = input.floats
        arguments.out = output.mutableFloats
        arguments.width = width
        arguments.setActivation(activation)
        // Items are whole rows, because the two halves of a row lie far apart.
        pool.run(
            count: output.count / max(width, 1), grain: ThreadPool.grain(elementsPerItem: 4 * width), arguments,
            nibble_gate_task)
    }

    package func multiply(_ input: Tensor, by factors: Tensor, from first: Int, into output: Tensor) throws {
        let (width, factorsWidth) = (input.shape.last, factors.shape.last)
        let rows = input.count / max(width, 1)
        precondition(
            output.count == input.count && factors.count == rows * factorsWidth && first + width <= factorsWidth,
            "product of \(input) and columns of \(factors) from \(first) into \(output)")
        let arguments = nibble_multiply_arguments(
            kernels: pool.kernels, input: input.floats, factors: factors.floats + first, out: output.mutableFloats,
            width: width, factors_width: factorsWidth, identity: Activation.identity.kernelCode.0)
        pool.run(count: rows, grain: ThreadPool.grain(elementsPerItem: width), arguments, nibble_multiply_task)
    }

    package func add(_ a: Tensor, _ b: Tensor, scale: Float, into output: Tensor) throws {
        precondition(a.count == b.count && a.count == output.count, "sum of \(a) and \(b) into \(output)")
        let arguments = nibble_add_arguments(
            kernels: pool.kernels, a: a.floats, b: b.floats, out: output.mutableFloats, scale: scale)
        pool.run(count: a.count, grain: 16384, arguments, nibble_add_task)
    }

    /// - Precondition: every index is a row of `input`.
    package func gatherRows(_ input: Tensor, _ indices: Tensor, into output: Tensor) throws {
        let rows = input.shape[0]
        let width = input.count / max(rows, 1)
        precondition(output.dtype == input.dtype && output.count == indices.count * width, "rows of \(input) into \(output)")
        let arguments = nibble_gather_arguments(
            input: input.pointer, out: output.mutablePointer, indices: indices.integers,
            row_bytes: width * input.dtype.byteCount)
        for index in 0..<indices.count {
            let row = Int(arguments.indices[index])
            precondition(row >= 0 && row < rows, "row \(row) of \(input)")
        }
        pool.run(count: indices.count, grain: ThreadPool.grain(elementsPerItem: width), arguments, nibble_gather_task)
    }
}

extension nibble_gate_arguments {
    mutating func setActivation(_ gate: GateActivation) {
        switch gate {
        case .product(let activation): (self.activation, parameter) = activation.kernelCode
        case .clampedGLU(let limit, let alpha): (is_clamped_glu, self.limit, self.alpha) = (true, limit, alpha)
        }
    }
}
