internal import CNibbleCUDA
package import NibbleCore

extension CUDABackend {
    /// Every expert's kernels are enqueued for all tokens, with routing weights; they return at once where no token chose the
    /// expert. Only products by cuBLASLt are always computed. Nothing returns to the host, so the layer can be part of a graph.
    package func experts(_ input: Tensor, _ call: ExpertsCall, into output: Tensor) throws {
        try perform {
            let tokens = input.shape[0]
            let width = output.shape.last
            let weights = try scratch(.float32, [call.experts.count, tokens])
            let sum = try scratch(.float32, [tokens, width])
            try route(call, tokens: tokens, to: weights)
            try fill(sum.address, 0, byteCount: sum.byteCount)
            for (index, expert) in call.experts.enumerated() {
                let mark = workspace.mark()
                defer { workspace.release(mark) }
                let rowWeights = weights.rows(index..<index + 1).viewed(as: [tokens])
                let hidden = expert.down.inFeatures
                let gates = try scratch(input.dtype, [tokens, expert.gateUp.outFeatures])
                let gated = try scratch(input.dtype, [tokens, hidden])
                try linear(input, expert.gateUp, epilogue: .init(), activeRows: rowWeights.pointer, into: gates)
                try gate(gates, call.activation, into: gated)
                try linear(
                    gated, LinearGroup([expert.down]),
                    epilogue: LinearEpilogue(rowScale: rowWeights, residual: sum), activeRows: rowWeights.pointer, into: sum)
            }
            if let residual = call.residual {
                try add(residual, sum, scale: 1, into: output)
            } else {
                try convert(sum, to: output)
            }
        }
    }

    private func route(_ call: ExpertsCall, tokens: Int, to weights: Tensor) throws {
        let arguments = NibbleRouteArguments(
            routerLogits: call.routerLogits.pointer, weights: weights.pointer, tokenCount: Int32(tokens),
            experts: Int32(call.experts.count), topK: Int32(call.topK), normalizesWeights: call.normalizesWeights ? 1 : 0)
        try launch(.route, grid: Grid(x: blocks(tokens, per: 128)), block: 128, arguments)
    }

    /// A tensor in workspace: it lives until its mark is released, whoever holds it.
    private func scratch(_ dtype: DType, _ shape: Shape) throws -> Tensor {
        let byteCount = shape.count * dtype.byteCount
        let storage = Storage(device: device, byteCount: byteCount, address: try workspace.take(byteCount)) { _ in }
        return Tensor(storage: storage, dtype: dtype, shape: shape)
    }

    /// What a mixture takes beside its linear layers.
    static func expertsBytes(_ shape: WorkspaceRequest.Experts, tokens: Int) -> Int {
        4 * tokens * (shape.count + shape.width + 3 * shape.hidden)
    }
}
