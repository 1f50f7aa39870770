internal import CNibbleCUDA
package import NibbleCore

extension CUDABackend {
    package func embed(_ call: EmbeddingCall, _ batch: BatchIndices, into output: Tensor) throws {
        try perform {
            let width = call.table.shape.last
            let arguments = NibbleEmbedArguments(
                table: call.table.pointer, positionTable: call.positionTable.pointer, tokens: batch.tokens.pointer,
                positions: batch.positions.pointer, output: output.pointer, vocabulary: Int64(call.table.shape[0]),
                positionCount: Int64(call.positionTable?.shape[0] ?? 0), width: Int32(width),
                tableType: try element(call.table.dtype, for: "embedding").code,
                positionType: try element(call.positionTable?.dtype ?? .float32, for: "embedding").code,
                outputType: output.dtype.code, scale: call.scale, unused: 0)
            try launch(.embed, grid: Grid(x: batch.tokenCount, y: blocks(width, per: 256)), block: 256, arguments)
        }
    }

    package func normalize(_ input: Tensor, _ norm: Norm, residual: Tensor?, into output: Tensor) throws {
        try perform {
            let width = input.shape.last
            let rows = input.count / max(width, 1)
            let arguments = NibbleNormArguments(
                input: input.pointer, residual: residual.pointer, weight: norm.weight.pointer, bias: norm.bias.pointer,
                output: output.pointer, rows: Int32(rows), width: Int32(width), isLayerNorm: norm.kind == .layer ? 1 : 0,
                epsilon: norm.epsilon, inputType: try element(input.dtype, for: "norm").code,
                residualType: try element(residual?.dtype ?? input.dtype, for: "norm").code,
                outputType: try element(output.dtype, for: "norm").code, unused: 0)
            // Depends on the width alone, because it determines the order of the sums.
            let block = width <= 1024 ? 128 : width <= 4096 ? 256 : 512
            try launch(.normalize, grid: Grid(x: rows), block: block, arguments)
        }
    }

    package func convert(_ source: Tensor, to destination: Tensor) throws {
        precondition(source.count == destination.count, "\(source) converted to \(destination)")
        try perform {
            try convert(
                source.address, element(source.dtype, for: "conversion").code, to: destination.address,
                element(destination.dtype, for: "conversion").code, count: source.count)
        }
    }

    /// Converts between runtime types, NIBBLE_F32 and so on.
    func convert(_ source: UInt, _ sourceType: Int32, to destination: UInt, _ type: Int32, count: Int) throws {
        var arguments = NibbleElementwiseArguments()
        arguments.a = UInt64(source)
        arguments.aType = sourceType
        arguments.output = UInt64(destination)
        arguments.outputType = type
        arguments.count = Int64(count)
        try launch(.convert, grid: Grid(x: blocks(count, per: 256)), block: 256, arguments)
    }

    package func gate(_ input: Tensor, _ activation: GateActivation, into output: Tensor) throws {
        try perform {
            var arguments = try elementwise(input, input, output, for: "gated activation")
            let width = output.shape.last
            arguments.width = Int64(width)
            (arguments.activation, arguments.activationParameter, arguments.scale) = activation.code
            let rows = output.count / max(width, 1)
            // With few rows, more threads are faster than wide accesses.
            if rows > 4, width % 8 == 0, (arguments.a | arguments.output) % 16 == 0 {
                return try launch(.gateEight, grid: Grid(x: rows, y: blocks(width, per: 8 * 128)), block: 128, arguments)
            }
            try launch(.gate, grid: Grid(x: rows, y: blocks(width, per: 256)), block: 256, arguments)
        }
    }

    package func multiply(_ input: Tensor, by factors: Tensor, from first: Int, into output: Tensor) throws {
        try perform {
            var arguments = try elementwise(input, factors, output, for: "product")
            arguments.width = Int64(input.shape.last)
            arguments.otherWidth = Int64(factors.shape.last)
            arguments.firstColumn = Int64(first)
            let rows = input.count / max(input.shape.last, 1)
            try launch(.multiply, grid: Grid(x: rows, y: blocks(input.shape.last, per: 128)), block: 128, arguments)
        }
    }

    package func add(_ a: Tensor, _ b: Tensor, scale: Float, into output: Tensor) throws {
        try perform {
            var arguments = try elementwise(a, b, output, for: "addition")
            arguments.count = Int64(output.count)
            arguments.scale = scale
            try launch(.add, grid: Grid(x: blocks(output.count, per: 256)), block: 256, arguments)
        }
    }

    package func gatherRows(_ input: Tensor, _ indices: Tensor, into output: Tensor) throws {
        try perform {
            let width = input.shape.last
            var arguments = try elementwise(input, input, output, for: "gathering rows")
            arguments.indices = indices.pointer
            arguments.width = Int64(width)
            arguments.sourceRows = Int64(input.count / max(width, 1))
            try launch(.gather, grid: Grid(x: indices.count, y: blocks(width, per: 256)), block: 256, arguments)
        }
    }

    private func elementwise(
        _ a: Tensor, _ b: Tensor, _ output: Tensor, for operation: String
    ) throws -> NibbleElementwiseArguments {
        var arguments = NibbleElementwiseArguments()
        arguments.a = a.pointer
        arguments.b = b.pointer
        arguments.output = output.pointer
        arguments.aType = try element(a.dtype, for: operation).code
        arguments.bType = try element(b.dtype, for: operation).code
        arguments.outputType = try element(output.dtype, for: operation).code
        return arguments
    }
}
