import NibbleCore

/// The keys and values of the encoder's output for each decoder layer, and the input that each row attends to.
final class CrossAttentionCache {
    private let caches: [KeyValueCache]
    private let lengths: [Int]
    private let blocksPerInput: Int
    private var inputOfRow: [Int]
    /// The rows of the call that runs.
    private var rows: [Int] = []
    private let image: IndexBuffers.Image
    private var devices: [(backend: any Backend, indices: IndexBuffers)] = []

    var cacheByteCount: Int { caches.reduce(0) { $0 + $1.keys.byteCount + $1.values.byteCount } }

    /// Runs the encoder over all inputs and fills the caches.
    init(_ model: LanguageModel, encoder: TransformerStack, _ request: SessionRequest, tokens: Int) throws {
        let inputs = request.encoderInputs
        lengths = inputs.map(\.count)
        inputOfRow = request.encoderGroup.isEmpty ? Array(0..<request.rows) : request.encoderGroup
        guard inputOfRow.count == request.rows, inputOfRow.allSatisfy(inputs.indices.contains) else {
            throw ModelError.encoderInputsMissing
        }
        blocksPerInput = EncoderPass.blocksPerInput(inputs)
        let blocks = blocksPerInput * inputs.count
        let format = model.options.cacheFormat(request)
        caches = try model.decoder.blocks.map { block in
            let description = block.crossAttention?.description ?? block.attention.description
            return try description.makeCache(blocks: blocks, format, block.backend)
        }
        let limits = IndexBuffers.Limits(tokens: tokens, rows: request.rows, blocksPerRow: blocksPerInput)
        image = IndexBuffers.Image(limits)
        for backend in model.decoder.backends {
            devices.append((backend, try IndexBuffers(limits, backend: backend)))
        }
        try encode(request, encoder, model)
    }

    private func encode(
        _ request: SessionRequest, _ encoder: TransformerStack, _ model: LanguageModel
    ) throws {
        let run = try EncoderPass(
            encoder, request.encoderInputs, padding: request.encoderPadding, model, blocksPerInput: blocksPerInput)
        run.runner.interruption = request.interruption
        try run.forEachBatch { encoded, backend, call in
            try store(encoded, from: backend, call, run.runner, model)
        }
    }

    private func store(
        _ encoded: Tensor, from source: any Backend, _ call: BatchShape, _ runner: StackRunner, _ model: LanguageModel
    ) throws {
        var (encoded, source) = (encoded, source)
        for (block, cache) in zip(model.decoder.blocks, caches) {
            guard let attention = block.crossAttention else { continue }
            encoded = try runner.move(encoded, from: source, to: block.backend)
            source = block.backend
            try block.stream.during {
                try attention.store(
                    encoded, cache: cache, runner.indices(call, on: source), runner.buffers(on: source), source)
            }
        }
    }

    /// Sets the rows of the call to come.
    func assign(_ segments: ArraySlice<FeedPlan.Segment>) {
        rows.removeAll(keepingCapacity: true)
        for segment in segments { rows.append(segment.row) }
    }

    /// Uploads the indices that go with a decoder call. Tokens belong to rows as in the call's own image; rows beyond those
    /// that were assigned are padding.
    func upload(_ call: BatchShape, image source: IndexBuffers.Image) throws {
        for token in 0..<call.tokens { image.rows[token] = source.rows[token] }
        for index in 0...call.rows { image.queryOffsets[index] = source.queryOffsets[index] }
        for index in 0..<call.rows {
            let input = inputOfRow[rows[min(index, rows.count - 1)]]
            image.lengths[index] = Int32(lengths[input])
            EncoderPass.fillTable(image, row: index, input: input, blocksPerInput: blocksPerInput)
        }
        for device in devices { try device.indices.upload(image, backend: device.backend) }
    }

    /// The cache and the indices of layer `index` on the backend that runs it.
    func context(
        _ index: Int, _ call: BatchShape, on backend: any Backend
    ) -> (cache: KeyValueCache, batch: BatchIndices) {
        guard let indices = devices.first(where: { $0.backend === backend })?.indices else {
            preconditionFailure("the decoder has no layer on \(backend.device)")
        }
        return (
            caches[index],
            indices.indices(
                tokens: call.tokens, rows: call.rows, maximumQueryLength: call.maximumQueryLength,
                maximumLength: lengths.max() ?? 0)
        )
    }

    func gather(_ sources: [Int]) { inputOfRow = sources.map { inputOfRow[$0] } }
}
