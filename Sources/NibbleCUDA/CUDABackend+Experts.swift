internal import CNibbleCUDA
package import NibbleCore

extension CUDABackend {
    /// Tokens are grouped by expert on the device, and one launch serves all experts. Where each has many tokens, the host reads
    /// how many, and experts run one after another. Formats without such kernels run every expert in a graph; kernels return at
    /// once where no token chose the expert.
    package func experts(_ input: Tensor, _ call: ExpertsCall, into output: Tensor) throws {
        try perform {
            let tokens = call.ids.count / max(call.topK, 1)
            guard tokens > 0, let first = call.experts.first else { return }
            let path = try expertsPath(call, input.dtype, tokens: tokens)
            guard path != .allTokens else { return try expertsOfAllTokens(input, call, into: output) }
            let pairBytes = ExpertsWorkspace.pairBytes(
                width: input.shape.last, hidden: first.down.inFeatures, elementSize: input.dtype.byteCount)
            let step = ExpertsWorkspace.tokens(of: tokens, topK: call.topK, pairBytes: pairBytes, limit: options.scratchLimit)
            for start in stride(from: 0, to: tokens, by: step) {
                let rows = start..<min(start + step, tokens)
                let mark = workspace.mark()
                defer { workspace.release(mark) }
                let part = ExpertsCall(
                    ids: call.ids.rows(rows), weights: call.weights.rows(rows), experts: call.expertSet,
                    activation: call.activation,
                    residual: call.residual?.rows(rows))
                switch path {
                case .grouped: try groupedExperts(input.rows(rows), part, into: output.rows(rows))
                default: try countedExperts(input.rows(rows), part, into: output.rows(rows))
                }
            }
        }
    }

    private enum ExpertsPath {
        case grouped, counted, allTokens
    }

    private func expertsPath(_ call: ExpertsCall, _ dtype: DType, tokens: Int) throws -> ExpertsPath {
        // Low-rank sums are made layer by layer.
        guard call.usedAdapters == nil else { return .allTokens }
        let mean = tokens * call.topK / max(call.experts.count, 1)
        let limit = try groupedLimit(call, dtype)
        if let limit, mean <= limit || isCapturing || tokens <= 8 { return .grouped }
        return !isCapturing && tokens > 8 && call.experts.count <= Int(NIBBLE_MOST_EXPERTS) ? .counted : .allTokens
    }

    /// The mean number of tokens of an expert up to which grouped products are faster, or `nil` where there are none.
    private func groupedLimit(_ call: ExpertsCall, _ dtype: DType) throws -> Int? {
        guard call.experts.count <= Int(NIBBLE_MOST_EXPERTS), try call.expertSet.table(on: self).isUniform,
            let first = call.experts.first, let gateUp = first.gateUp.layers.first,
            let up = groupedLimit(LinearKind(gateUp, input: dtype), dtype),
            let down = groupedLimit(LinearKind(first.down, input: dtype), dtype)
        else { return nil }
        return min(up, down)
    }

    private func groupedLimit(_ kind: LinearKind, _ dtype: DType) -> Int? {
        switch kind {
        case .dense(let stored): stored == dtype ? (products == nil ? .max : 32) : nil
        case .tiledFourBit(_, let compute): compute == .float32 ? 32 : hasWarpgroups ? 128 : 64
        case .int8(_, let scope, _): scope == .token ? (products == nil ? .max : 32) : nil
        case .canonicalFourBit, .foreign: nil
        }
    }

    /// Reads from the device how many tokens each expert has.
    private func countedExperts(_ input: Tensor, _ call: ExpertsCall, into output: Tensor) throws {
        let tokens = input.shape[0]
        let groups = try group(call, tokens: tokens, tile: blocks(tokens, per: 8) * 8)
        guard let arrays = groups.arrays else { return }
        var slots = [Int32](repeating: 0, count: 4 * groups.slotCount)
        try slots.withUnsafeMutableBytes { try download(arrays.slots.address, $0.count, into: $0) }
        let pairs = call.ids.count
        let width = input.shape.last
        let sorted = try scratch(input.dtype, [pairs, width])
        try gatherRows(input, arrays.rows, into: sorted)
        let products = try scratch(.float32, [pairs, width])
        for slot in 0..<groups.slotCount where slots[4 * slot + 2] > 0 {
            let mark = workspace.mark()
            defer { workspace.release(mark) }
            let expert = call.experts[Int(slots[4 * slot])]
            let positions = Int(slots[4 * slot + 1])..<Int(slots[4 * slot + 1] + slots[4 * slot + 2])
            let hidden = try activated(call.activation, input.dtype, [positions.count, expert.down.inFeatures]) {
                try linear(sorted.rows(positions), expert.gateUp, epilogue: .init(activation: $0), activeRows: 0, into: $1)
            }
            try linear(
                hidden, LinearGroup([expert.down]), epilogue: .init(), activeRows: 0, into: products.rows(positions))
        }
        try combine(products, call, groups, into: output)
    }

    /// Every expert for all tokens, with routing weights; kernels return at once where no token chose the expert. Only products
    /// by cuBLASLt are always computed.
    private func expertsOfAllTokens(_ input: Tensor, _ call: ExpertsCall, into output: Tensor) throws {
        let tokens = input.shape[0]
        let width = input.shape.last
        let weights = try scratch(.float32, [call.experts.count, tokens])
        let sum = try scratch(.float32, [tokens, width])
        try spreadWeights(call, tokens: tokens, to: weights)
        try fill(sum.address, 0, byteCount: sum.byteCount)
        for (index, expert) in call.experts.enumerated() {
            let mark = workspace.mark()
            defer { workspace.release(mark) }
            let rowWeights = weights.rows(index..<index + 1).viewed(as: [tokens])
            let hidden = try activated(call.activation, input.dtype, [tokens, expert.down.inFeatures]) {
                try linear(
                    input, expert.gateUp, epilogue: .init(activation: $0, adapters: call.adapters),
                    activeRows: rowWeights.pointer, into: $1)
            }
            try linear(
                hidden, LinearGroup([expert.down]),
                epilogue: LinearEpilogue(rowScale: rowWeights, residual: sum, adapters: call.adapters),
                activeRows: rowWeights.pointer, into: sum)
        }
        if let residual = call.residual {
            try add(residual, sum, scale: 1, into: output)
        } else {
            try convert(sum, to: output)
        }
    }

    /// The experts' hidden activations, of `shape` [rows, F].
    /// - Parameter product: the product of input and gate and up, with an activation of its outputs, into a tensor.
    func activated(
        _ activation: ExpertActivation, _ dtype: DType, _ shape: Shape, _ product: (Activation, Tensor) throws -> Void
    ) throws -> Tensor {
        switch activation {
        case .gated(let activation):
            let gates = try scratch(dtype, [shape[0], 2 * shape[1]])
            let hidden = try scratch(dtype, shape)
            try product(.identity, gates)
            try gate(gates, activation, into: hidden)
            return hidden
        case .plain(let activation):
            let hidden = try scratch(dtype, shape)
            try product(activation, hidden)
            return hidden
        }
    }

    private func spreadWeights(_ call: ExpertsCall, tokens: Int, to weights: Tensor) throws {
        try fill(weights.address, 0, byteCount: weights.byteCount)
        let arguments = NibbleSpreadArguments(
            ids: call.ids.pointer, weights: call.weights.pointer, spread: weights.pointer, tokens: Int32(tokens),
            experts: Int32(call.experts.count), topK: Int32(call.topK), unused: 0)
        try launch(.spreadWeights, grid: Grid(x: blocks(call.ids.count, per: 256)), block: 256, arguments)
    }

    /// A tensor in workspace: it lives until its mark is released, whoever holds it.
    func scratch(_ dtype: DType, _ shape: Shape) throws -> Tensor {
        let byteCount = shape.count * dtype.byteCount
        let storage = Storage(device: device, byteCount: byteCount, address: try workspace.take(byteCount)) { _ in }
        return Tensor(storage: storage, dtype: dtype, shape: shape)
    }
}

/// What a mixture takes beside its linear layers, and how many tokens run at a time.
enum ExpertsWorkspace {
    /// Bytes of a pair of token and expert: its input, both hidden activations, its output and its staged form.
    static func pairBytes(width: Int, hidden: Int, elementSize: Int) -> Int {
        let staged = blocks(max(width, hidden), per: 128) * 256 * (elementSize == 4 ? 2 : 1) + 4
        return width * (elementSize + 4) + 3 * hidden * elementSize + staged + 16
    }

    /// As many of `count` tokens as fit in `limit` bytes.
    static func tokens(of count: Int, topK: Int, pairBytes: Int, limit: Int) -> Int {
        min(count, max(limit / (topK * pairBytes), 64))
    }

    static func byteCount(_ shape: WorkspaceRequest.Experts, tokens: Int, elementSize: Int, limit: Int) -> Int {
        let pairBytes = pairBytes(width: shape.width, hidden: shape.hidden, elementSize: elementSize)
        let step = self.tokens(of: tokens, topK: shape.topK, pairBytes: pairBytes, limit: limit)
        let slots = min(step * shape.topK, shape.count) + step * shape.topK / 8
        // Without kernels for groups: a sum, and weights of every expert.
        let all = 4 * tokens * (shape.count + shape.width + 3 * shape.hidden)
        return max(all, step * shape.topK * pairBytes + 8 * shape.count * pairBytes / 2 + 16 * slots)
    }
}
