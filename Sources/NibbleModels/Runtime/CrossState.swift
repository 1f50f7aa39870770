import NibbleCore

/// What a decoder keeps of the encoder: for each of its layers the keys and values of the encoder's output, and which rows
/// attend to which input.
final class CrossState {
    private let caches: [KeyValueCache]
    private let lengths: [Int]
    private let blocksPerInput: Int
    private var inputOfRow: [Int]
    private let image: BatchBuffers.Image
    private var parts: [(backend: any Backend, buffers: BatchBuffers)] = []

    /// Encoder inputs are run together up to this many tokens.
    private static let encoderTokens = 2048

    /// Runs the encoder over all inputs and fills the caches.
    init(_ model: LanguageModel, encoder: TransformerStack, _ request: SessionRequest, tokens: Int) throws {
        let inputs = request.encoderInputs
        lengths = inputs.map(\.count)
        inputOfRow = request.encoderGroup.isEmpty ? Array(0..<request.rows) : request.encoderGroup
        guard inputOfRow.count == request.rows, inputOfRow.allSatisfy(inputs.indices.contains) else {
            throw ModelError.encoderInputsMissing
        }
        let longest = lengths.max() ?? 0
        blocksPerInput = max(KeyValueGeometry.blocks(for: longest), 1)
        let blocks = blocksPerInput * inputs.count
        caches = try model.decoder.blocks.map { block in
            let description = block.crossAttention?.description ?? block.attention.description
            return try description.makeCache(blocks: blocks, model.options, block.backend)
        }
        let limits = BatchBuffers.Limits(tokens: tokens, rows: request.rows, blocksPerRow: blocksPerInput)
        image = BatchBuffers.Image(limits)
        for backend in model.decoder.backends {
            parts.append((backend, try BatchBuffers(limits, backend: backend)))
        }
        try encode(inputs, encoder, model, longest: longest, blocks: blocks)
    }

    private func encode(
        _ inputs: [[Int32]], _ encoder: TransformerStack, _ model: LanguageModel, longest: Int, blocks: Int
    ) throws {
        for input in inputs {
            for token in input where token < 0 || token >= model.vocabularySize {
                throw ModelError.tokenOutOfRange(token: token, vocabularySize: model.vocabularySize)
            }
        }
        let batches = CrossState.batches(inputs)
        let limits = BatchBuffers.Limits(
            tokens: batches.map { $0.reduce(0) { $0 + inputs[$1].count } }.max() ?? 0, rows: batches.map(\.count).max() ?? 0,
            blocksPerRow: blocksPerInput)
        let runner = try StackRunner(
            encoder, limits: limits, blocks: blocks, sharesCache: true, positions: longest, options: model.options,
            widening: model.decoder.workspaceSizes, extraBackends: model.decoder.backends)
        for batch in batches {
            let call = fill(runner.image, batch, inputs)
            guard call.tokens > 0 else { continue }
            try runner.upload()
            let (hidden, backend) = try runner.run(call)
            let (encoded, last) = try runner.finish(hidden, on: backend)
            try store(encoded, from: last, call, runner, model)
        }
    }

    private func store(
        _ encoded: Tensor, from source: any Backend, _ call: StackRunner.Call, _ runner: StackRunner, _ model: LanguageModel
    ) throws {
        var (encoded, source) = (encoded, source)
        for (block, cache) in zip(model.decoder.blocks, caches) {
            guard let attention = block.crossAttention else { continue }
            encoded = try runner.move(encoded, from: source, to: block.backend)
            source = block.backend
            try attention.store(
                encoded, cache: cache, runner.indices(call, on: source), runner.workspace(on: source), source)
        }
    }

    /// Indices of inputs that are encoded together, each batch at least one.
    private static func batches(_ inputs: [[Int32]]) -> [[Int]] {
        var batches = [[Int]]()
        var tokens = 0
        for (index, input) in inputs.enumerated() {
            if batches.isEmpty || tokens + input.count > encoderTokens {
                batches.append([])
                tokens = 0
            }
            batches[batches.count - 1].append(index)
            tokens += input.count
        }
        return batches
    }

    /// Places the batch's tokens; the block table is the one the cross caches use, so one serves both.
    private func fill(_ image: BatchBuffers.Image, _ batch: [Int], _ inputs: [[Int32]]) -> StackRunner.Call {
        var call = StackRunner.Call(tokens: 0, rows: batch.count, maximumQueryLength: 0, maximumLength: 0)
        for (row, index) in batch.enumerated() {
            image.queryOffsets[row] = Int32(call.tokens)
            image.lengths[row] = Int32(inputs[index].count)
            fillTable(image, row: row, input: index)
            for (position, token) in inputs[index].enumerated() {
                image.tokens[call.tokens] = token
                image.positions[call.tokens] = Int32(position)
                image.rows[call.tokens] = Int32(row)
                call.tokens += 1
            }
            call.maximumQueryLength = max(call.maximumQueryLength, inputs[index].count)
        }
        call.maximumLength = call.maximumQueryLength
        image.queryOffsets[batch.count] = Int32(call.tokens)
        return call
    }

    private func fillTable(_ image: BatchBuffers.Image, row: Int, input: Int) {
        for block in 0..<blocksPerInput {
            image.blockTable[row * blocksPerInput + block] = Int32(input * blocksPerInput + block)
        }
    }

    /// Sends the indices that go with a decoder call over `rows`, whose own image tells which token belongs to which.
    func prepare(rows: [Int], image call: BatchBuffers.Image, tokens: Int) throws {
        for token in 0..<tokens { image.rows[token] = call.rows[token] }
        for index in 0...rows.count { image.queryOffsets[index] = call.queryOffsets[index] }
        for (index, row) in rows.enumerated() {
            image.lengths[index] = Int32(lengths[inputOfRow[row]])
            fillTable(image, row: index, input: inputOfRow[row])
        }
        for part in parts { try part.buffers.upload(image, backend: part.backend) }
    }

    /// Layer `index`'s cache and indices on the backend it runs on.
    func context(
        _ index: Int, _ call: StackRunner.Call, on backend: any Backend
    ) -> (cache: KeyValueCache, batch: BatchIndices) {
        guard let part = parts.first(where: { $0.backend === backend }) else {
            preconditionFailure("the decoder has no layer on \(backend.device)")
        }
        return (
            caches[index],
            part.buffers.indices(
                tokens: call.tokens, rows: call.rows, maximumQueryLength: call.maximumQueryLength,
                maximumLength: lengths.max() ?? 0)
        )
    }

    func gather(_ sources: [Int]) { inputOfRow = sources.map { inputOfRow[$0] } }
}
