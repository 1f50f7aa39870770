internal import CNibbleCPU
package import NibbleCore

extension CPUBackend {
    package func experts(_ input: Tensor, _ call: ExpertsCall, into output: Tensor) throws {
        let count = call.experts.count
        let rows = call.routerLogits.count / max(count, 1)
        guard rows > 0, let first = call.experts.first else { return }
        precondition(call.topK > 0 && call.topK <= count, "top \(call.topK) of \(count) experts")
        try pool.exclusively {
            let work = try ExpertsScratch(
                rows: rows, experts: count, topK: call.topK, width: input.count / rows, hidden: first.down.inFeatures,
                memory: expertsScratch)
            nibble_route(
                call.routerLogits.floats, rows, count, call.topK, call.normalizesWeights, work.starts.mutableIntegers,
                work.tokens.mutableIntegers, work.weights.mutableFloats, work.chosen.mutableIntegers,
                work.chosenWeights.mutableFloats)
            try start(output, from: call.residual)
            for (index, expert) in call.experts.enumerated() {
                let begin = Int(work.starts.integers[index])
                let end = Int(work.starts.integers[index + 1])
                if begin < end { try run(expert, begin..<end, call.activation, input, work, output) }
            }
        }
    }

    private func start(_ output: Tensor, from residual: Tensor?) throws {
        guard let residual else {
            output.mutableFloats.update(repeating: 0, count: output.count)
            return
        }
        if residual.address != output.address { try copy(residual, to: output) }
    }

    /// Adds one expert's output to the tokens that `assignments` gives it.
    private func run(
        _ expert: Expert, _ assignments: Range<Int>, _ activation: Activation, _ input: Tensor, _ work: ExpertsScratch,
        _ output: Tensor
    ) throws {
        let rows = assignments.count
        let tokens = work.tokens.integers + assignments.lowerBound
        let x = work.input.viewed(as: [rows, work.width])
        nibble_gather_rows(input.floats, tokens, rows, work.width, x.mutableFloats)
        let gateUp = work.gateUp.viewed(as: [rows, 2 * work.hidden])
        try linear(x, expert.gateUp, epilogue: LinearEpilogue(), into: gateUp)
        let hidden = work.gated.viewed(as: [rows, work.hidden])
        try gate(gateUp, activation, into: hidden)
        try linear(hidden, LinearGroup([expert.down]), epilogue: LinearEpilogue(), into: x)
        nibble_scatter_rows(
            x.floats, tokens, work.weights.floats + assignments.lowerBound, rows, work.width, output.mutableFloats)
    }
}

/// A mixture's scratch memory, divided. T rows, X experts, k of them per row, E model width, F hidden width.
struct ExpertsScratch {
    let width: Int
    let hidden: Int
    /// int32 [X + 1]
    let starts: Tensor
    /// int32 [T·k]: the tokens of all assignments, grouped by expert
    let tokens: Tensor
    /// float32 [T·k]
    let weights: Tensor
    let chosen: Tensor
    let chosenWeights: Tensor
    /// float32 [T, E]: one expert's input, then its output
    let input: Tensor
    /// float32 [T, 2F]
    let gateUp: Tensor
    /// float32 [T, F]
    let gated: Tensor

    init(rows: Int, experts: Int, topK: Int, width: Int, hidden: Int, memory: GrowingBuffer) throws {
        let assignments = rows * topK
        let storage = try memory.storage(
            ExpertsScratch.byteCount(rows: rows, .init(count: experts, topK: topK, width: width, hidden: hidden)))
        var offset = 0
        func piece(_ dtype: DType, _ shape: Shape) -> Tensor {
            defer { offset += ExpertsScratch.padded(shape.count) }
            return Tensor(storage: storage, byteOffset: offset, dtype: dtype, shape: shape)
        }
        self.width = width
        self.hidden = hidden
        starts = piece(.int32, [experts + 1])
        tokens = piece(.int32, [assignments])
        weights = piece(.float32, [assignments])
        chosen = piece(.int32, [assignments])
        chosenWeights = piece(.float32, [assignments])
        input = piece(.float32, [rows, width])
        gateUp = piece(.float32, [rows, 2 * hidden])
        gated = piece(.float32, [rows, hidden])
    }

    static func byteCount(rows: Int, _ shape: WorkspaceRequest.Experts) -> Int {
        padded(shape.count + 1) + 4 * padded(rows * shape.topK) + padded(rows * shape.width) + padded(rows * 2 * shape.hidden)
            + padded(rows * shape.hidden)
    }

    /// Bytes of `count` 4-byte elements, rounded up to whole cache lines.
    private static func padded(_ count: Int) -> Int { (count * 4 + 63) / 64 * 64 }
}
