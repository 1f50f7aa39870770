import NibbleCore

/// The keys and values of encoder outputs for each decoder layer, in places of equal size, and the place that each row attends
/// to.
final class CrossAttentionCache {
    private let model: LanguageModel
    private let caches: [KeyValueCache]
    /// Tokens in each place.
    private var lengths: [Int]
    private let blocksPerInput: Int
    /// Sizes launches.
    private let maximumLength: Int
    private var entryOfRow: [Int]
    /// The rows of the call that runs.
    private var rows: [Int] = []
    private let image: IndexBuffers.Image
    private var devices: [(backend: any Backend, indices: IndexBuffers)] = []

    var cacheByteCount: Int { caches.reduce(0) { $0 + $1.keys.byteCount + $1.values.byteCount } }

    /// - Parameters:
    ///   - entries: places for encoder outputs of up to `maximumLength` tokens.
    ///   - entryOfRow: the place of each decoder row.
    ///   - tokens: tokens of the largest decoder call.
    init(
        _ model: LanguageModel, entries: Int, maximumLength: Int, entryOfRow: [Int], tokens: Int, format: KeyValueFormat
    ) throws {
        self.model = model
        self.entryOfRow = entryOfRow
        self.maximumLength = maximumLength
        lengths = Array(repeating: 0, count: entries)
        let blocksPerInput = max(KeyValueGeometry.blocks(for: maximumLength), 1)
        self.blocksPerInput = blocksPerInput
        caches = try model.decoder.blocks.map { block in
            guard let description = block.crossAttention?.description ?? block.description.selfAttention else {
                preconditionFailure("a decoder block without attention")
            }
            return try description.makeCache(blocks: blocksPerInput * entries, format, block.backend)
        }
        let limits = IndexBuffers.Limits(tokens: tokens, rows: entryOfRow.count, blocksPerRow: blocksPerInput)
        image = IndexBuffers.Image(limits)
        for backend in model.decoder.backends {
            devices.append((backend, try IndexBuffers(limits, backend: backend)))
        }
    }

    /// Encodes the inputs of a session, each with the adapters of a row that attends to it.
    /// - Parameter adapters: of each row, or one entry for all.
    convenience init(
        _ model: LanguageModel, encoder: TransformerStack, _ request: SessionRequest, _ adapters: [AdapterWeights], tokens: Int
    ) throws {
        let rows = request.encoderGroup.isEmpty ? Array(0..<request.rows) : request.encoderGroup
        guard rows.count == request.rows, rows.allSatisfy(request.encoderInputs.indices.contains) else {
            throw ModelError.encoderInputsMissing
        }
        let inputs = try EncoderInputs(
            request.encoderInputs, padding: request.encoderPadding, of: encoder, vocabularySize: model.vocabularySize)
        try self.init(
            model, entries: inputs.inputs.count, maximumLength: inputs.longest, entryOfRow: rows, tokens: tokens,
            format: model.options.cacheFormat(request))
        let pass = try EncoderPass(encoder, model, inputs)
        for (row, entry) in rows.enumerated() {
            try pass.setAdapters(adapters[adapters.count == 1 ? 0 : row], entry: entry)
        }
        pass.runner.interruption = request.interruption
        try encode(inputs, pass)
    }

    /// Runs the encoder over inputs and keeps its output in the places from `firstEntry` on.
    func encode(_ inputs: EncoderInputs, firstEntry: Int = 0, _ pass: EncoderPass) throws {
        for (index, input) in inputs.inputs.enumerated() { lengths[firstEntry + index] = input.count }
        try pass.run(inputs, firstEntry: firstEntry) { encoded, backend, call in
            try store(encoded, from: backend, call, pass.runner)
        }
    }

    /// Lets a row attend to a place.
    func attach(row: Int, to entry: Int) { entryOfRow[row] = entry }

    private func store(
        _ encoded: Tensor, from source: any Backend, _ call: BatchShape, _ runner: StackRunner
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
    func setRows(_ newRows: some Sequence<Int>) {
        rows.removeAll(keepingCapacity: true)
        rows += newRows
    }

    /// Uploads the indices that go with a decoder call. Tokens belong to rows as in the call's own image; rows beyond those
    /// that were assigned are padding.
    func upload(_ call: BatchShape, image source: IndexBuffers.Image) throws {
        for token in 0..<call.tokens { image.rows[token] = source.rows[token] }
        for index in 0...call.rows { image.queryOffsets[index] = source.queryOffsets[index] }
        for index in 0..<call.rows {
            let entry = entryOfRow[rows[min(index, rows.count - 1)]]
            image.lengths[index] = Int32(lengths[entry])
            EncoderPass.fillTable(image, row: index, entry: entry, blocksPerInput: blocksPerInput)
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
                maximumLength: maximumLength)
        )
    }

    func gather(_ sources: [Int]) { entryOfRow = sources.map { entryOfRow[$0] } }
}
