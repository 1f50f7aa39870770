internal import CNibbleCPU
package import NibbleCore

extension CPUBackend {
    /// Tokens are grouped by expert. Experts run together, as many at a time as have no more rows than the scratch memory; what a
    /// token gets is added in the order of the experts.
    package func experts(_ input: Tensor, _ call: ExpertsCall, into output: Tensor) throws {
        let (count, topK) = (call.experts.count, call.topK)
        let tokens = call.ids.count / max(topK, 1)
        guard tokens > 0, let first = call.experts.first else { return }
        try pool.exclusively {
            let work = try ExpertsScratch(
                tokens: tokens, experts: count, topK: topK, width: input.count / tokens, hidden: first.down.inFeatures,
                memory: expertsScratch)
            nibble_group_by_expert(
                call.ids.integers, tokens * topK, count, work.starts.mutableIntegers, work.pairs.mutableIntegers)
            try start(output, from: call.residual)
            let starts = work.starts.integers
            var begin = 0
            while begin < count {
                var end = begin + 1
                while end < count, Int(starts[end + 1] - starts[begin]) <= work.rows { end += 1 }
                if starts[begin] < starts[end] { try run(begin..<end, call, input, work, output) }
                begin = end
            }
        }
        withExtendedLifetime((input, call, output)) {}
    }

    private func start(_ output: Tensor, from residual: Tensor?) throws {
        guard let residual else {
            output.mutableFloats.update(repeating: 0, count: output.count)
            return
        }
        if residual.address != output.address { try copy(residual, to: output) }
    }

    /// Adds what `experts` give to the tokens of their pairs.
    private func run(
        _ experts: Range<Int>, _ call: ExpertsCall, _ input: Tensor, _ work: ExpertsScratch, _ output: Tensor
    ) throws {
        let starts = work.starts.integers
        let first = Int(starts[experts.lowerBound])
        let rows = Int(starts[experts.upperBound]) - first
        let table = try call.expertSet.table(on: self)
        var moved = nibble_expert_rows_arguments(
            pairs: work.pairs.integers + first, weights: call.weights.floats, tokens: input.mutableFloats,
            rows: work.input.mutableFloats, k: call.topK, count: rows, width: work.width)
        let grain = ThreadPool.grain(elementsPerItem: work.width)
        pool.run(count: rows, grain: grain, moved, nibble_gather_expert_rows_task)

        let x = work.input.viewed(as: [rows, work.width])
        let hidden = work.gated.viewed(as: [rows, work.hidden])
        let adapters = call.usedAdapters?.gathered(work.pairs.rows(first..<first + rows), of: call.topK, into: work.slots)
        switch call.activation {
        case .gated(let activation):
            let gates = work.gateUp.viewed(as: [rows, 2 * work.hidden])
            try multiply(x, experts, work, table.gateUp, { call.experts[$0].gateUp }, adapters, into: gates)
            try gate(gates, activation, into: hidden)
        case .plain(let activation):
            try multiply(x, experts, work, table.gateUp, { call.experts[$0].gateUp }, adapters, activation, into: hidden)
        }
        try multiply(hidden, experts, work, table.down, { LinearGroup([call.experts[$0].down]) }, adapters, into: x)

        moved.tokens = output.mutableFloats
        pool.run(
            count: work.width, grain: max(ThreadPool.grain(elementsPerItem: rows), 64), moved, nibble_scatter_expert_rows_task)
    }

    /// Rows of `input` and `output` are those of the experts' pairs. The layers of all experts share their loops, unless they
    /// multiply in different forms or have low-rank sums.
    private func multiply(
        _ input: Tensor, _ experts: Range<Int>, _ work: ExpertsScratch, _ group: CPUExpertTable.Group?,
        _ layers: (Int) -> LinearGroup, _ adapters: AdapterRows?, _ activation: Activation = .identity, into output: Tensor
    ) throws {
        let starts = work.starts.integers
        let first = Int(starts[experts.lowerBound])
        let chosen = experts.filter { starts[$0] < starts[$0 + 1] }
        guard let group, adapters == nil else {
            for expert in chosen {
                let rows = Int(starts[expert]) - first..<Int(starts[expert + 1]) - first
                let own = adapters.map { AdapterRows(weights: $0.weights, slots: $0.slots?.rows(rows)) }
                try linear(
                    input.rows(rows), layers(expert), epilogue: LinearEpilogue(activation: activation, adapters: own),
                    into: output.rows(rows))
            }
            return
        }
        try group.layers.withUnsafeBufferPointer { layers in
            try withUnsafeTemporaryAllocation(of: nibble_linear_arguments.self, capacity: chosen.count) { calls in
                for (index, expert) in chosen.enumerated() {
                    let row = Int(starts[expert]) - first
                    var call = nibble_linear_arguments()
                    call.kernels = pool.kernels
                    call.x = input.floats + row * group.inFeatures
                    call.T = Int(starts[expert + 1] - starts[expert])
                    call.K = group.inFeatures
                    call.layers = layers.baseAddress.map { $0 + expert * group.layersPerExpert }
                    call.layer_count = group.layersPerExpert
                    call.output = output.mutableFloats + row * group.outFeatures
                    call.output_stride = group.outFeatures
                    call.setEpilogue(LinearEpilogue(activation: activation), stride: group.outFeatures)
                    call.batch_invariant = isBatchInvariant
                    call.setForm(
                        InputForm(group.format, group.arithmetic, inFeatures: group.inFeatures, kernels: pool.kernels))
                    calls.initializeElement(at: index, to: call)
                }
                try run(nibble_linear_batch(calls: calls.baseAddress, count: chosen.count), rows: input.shape[0])
            }
        }
    }

    private func run(_ batch: nibble_linear_batch, rows: Int) throws {
        var batch = batch
        let threads = Int32(pool.threadCount)
        nibble_linear_batch_bind(&batch, try linearScratch.bytes(nibble_linear_batch_workspace(&batch, threads)), threads)
        for index in 0..<batch.count { nibble_linear_find_columns(batch.calls + index) }
        pool.run(count: nibble_linear_batch_rows(&batch), context: &batch, task: nibble_linear_batch_input_task)
        // Experts with more rows take longer, so threads fetch their tiles. For few rows each thread reads one long range.
        let isDynamic = rows > 4 * batch.count
        pool.run(
            count: nibble_linear_batch_tiles(&batch), grain: isDynamic ? 8 : 1, isDynamic: isDynamic, context: &batch,
            task: nibble_linear_batch_task)
    }
}

extension AdapterRows {
    /// The same for the tokens of these pairs, int32 [n], of which each token has `topK`; their slots are written to `slots`.
    fileprivate func gathered(_ pairs: Tensor, of topK: Int, into slots: Tensor) -> AdapterRows {
        guard let own = self.slots else { return self }
        for index in 0..<pairs.count { slots.mutableIntegers[index] = own.integers[Int(pairs.integers[index]) / topK] }
        return AdapterRows(weights: weights, slots: slots)
    }
}

/// A mixture's scratch memory, divided. T tokens, X experts, k of them per token, E model width, F hidden width, R rows.
struct ExpertsScratch {
    let width: Int
    let hidden: Int
    /// R: the most pairs of token and expert that run together, at least as many as one expert can have.
    let rows: Int
    /// int32 [X + 1]
    let starts: Tensor
    /// int32 [T·k]: the indices of all pairs of token and expert, grouped by expert
    let pairs: Tensor
    /// int32 [R]: the slots of the pairs' adapters
    let slots: Tensor
    /// float32 [R, E]: the experts' input, then their output
    let input: Tensor
    /// float32 [R, 2F]
    let gateUp: Tensor
    /// float32 [R, F]
    let gated: Tensor

    init(tokens: Int, experts: Int, topK: Int, width: Int, hidden: Int, memory: GrowingBuffer) throws {
        let storage = try memory.storage(
            ExpertsScratch.byteCount(tokens: tokens, .init(count: experts, topK: topK, width: width, hidden: hidden)))
        var offset = 0
        func piece(_ dtype: DType, _ shape: Shape) -> Tensor {
            defer { offset += ExpertsScratch.padded(shape.count) }
            return Tensor(storage: storage, byteOffset: offset, dtype: dtype, shape: shape)
        }
        self.width = width
        self.hidden = hidden
        rows = ExpertsScratch.rows(tokens: tokens, topK: topK)
        starts = piece(.int32, [experts + 1])
        pairs = piece(.int32, [tokens * topK])
        slots = piece(.int32, [rows])
        input = piece(.float32, [rows, width])
        gateUp = piece(.float32, [rows, 2 * hidden])
        gated = piece(.float32, [rows, hidden])
    }

    /// R. All pairs of a few tokens run together.
    static func rows(tokens: Int, topK: Int) -> Int { max(tokens, min(tokens * topK, 64)) }

    static func byteCount(tokens: Int, _ shape: WorkspaceRequest.Experts) -> Int {
        let rows = rows(tokens: tokens, topK: shape.topK)
        return padded(shape.count + 1) + padded(tokens * shape.topK) + padded(rows) + padded(rows * shape.width)
            + padded(rows * 2 * shape.hidden) + padded(rows * shape.hidden)
    }

    /// Bytes of `count` 4-byte elements, rounded up to whole cache lines.
    private static func padded(_ count: Int) -> Int { (count * 4 + 63) / 64 * 64 }
}
