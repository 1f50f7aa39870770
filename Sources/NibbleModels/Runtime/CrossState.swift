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

    var cacheByteCount: Int { caches.reduce(0) { $0 + $1.keys.byteCount + $1.values.byteCount } }

    /// Runs the encoder over all inputs and fills the caches.
    init(_ model: LanguageModel, encoder: TransformerStack, _ request: SessionRequest, tokens: Int) throws {
        let inputs = request.encoderInputs
        lengths = inputs.map(\.count)
        inputOfRow = request.encoderGroup.isEmpty ? Array(0..<request.rows) : request.encoderGroup
        guard inputOfRow.count == request.rows, inputOfRow.allSatisfy(inputs.indices.contains) else {
            throw ModelError.encoderInputsMissing
        }
        blocksPerInput = EncoderRun.blocksPerInput(inputs)
        let blocks = blocksPerInput * inputs.count
        let format = model.options.cacheFormat(request)
        caches = try model.decoder.blocks.map { block in
            let description = block.crossAttention?.description ?? block.attention.description
            return try description.makeCache(blocks: blocks, format, block.backend)
        }
        let limits = BatchBuffers.Limits(tokens: tokens, rows: request.rows, blocksPerRow: blocksPerInput)
        image = BatchBuffers.Image(limits)
        for backend in model.decoder.backends {
            parts.append((backend, try BatchBuffers(limits, backend: backend)))
        }
        try encode(request, encoder, model)
    }

    private func encode(
        _ request: SessionRequest, _ encoder: TransformerStack, _ model: LanguageModel
    ) throws {
        let run = try EncoderRun(
            encoder, request.encoderInputs, padding: request.encoderPadding, model, blocksPerInput: blocksPerInput)
        run.runner.interruption = request.interruption
        try run.forEachBatch { encoded, backend, call in
            try store(encoded, from: backend, call, run.runner, model)
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
            try block.stream.during {
                try attention.store(
                    encoded, cache: cache, runner.indices(call, on: source), runner.workspace(on: source), source)
            }
        }
    }

    /// Sends the indices that go with a decoder call over `rows`, whose own image tells which token belongs to which.
    func prepare(rows: [Int], image call: BatchBuffers.Image, tokens: Int) throws {
        for token in 0..<tokens { image.rows[token] = call.rows[token] }
        for index in 0...rows.count { image.queryOffsets[index] = call.queryOffsets[index] }
        for (index, row) in rows.enumerated() {
            image.lengths[index] = Int32(lengths[inputOfRow[row]])
            EncoderRun.fillTable(image, row: index, input: inputOfRow[row], blocksPerInput: blocksPerInput)
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
