package import NibbleCore

/// Inputs of an encoder, without padding, and how they are divided into batches.
struct EncoderInputs {
    let inputs: [[Int32]]
    /// Position of each input's first token.
    let starts: [Int]
    /// Indices of the inputs that are encoded together.
    let batches: [[Int]]

    /// - Parameter padding: padding tokens before each input, for encoders that count them; may be empty.
    /// - Throws: ``ModelError/tokenOutOfRange(token:vocabularySize:)``, ``SessionError/positionOutOfRange(position:positions:)``
    init(_ inputs: [[Int32]], padding: [Int] = [], of encoder: TransformerStack, vocabularySize: Int) throws {
        for token in inputs.joined() where token < 0 || token >= vocabularySize {
            throw ModelError.tokenOutOfRange(token: token, vocabularySize: vocabularySize)
        }
        self.inputs = inputs
        let counts = encoder.description.countsPadding && padding.count == inputs.count
        starts = counts ? padding.map { max($0, 0) } : Array(repeating: 0, count: inputs.count)
        for (start, input) in zip(starts, inputs) { try encoder.embedding.validate(positions: start + input.count) }
        batches = EncoderInputs.batches(inputs)
    }

    var longest: Int { inputs.map(\.count).max() ?? 0 }
    var blocksPerInput: Int { max(KeyValueGeometry.blocks(for: longest), 1) }
    /// Tokens and rows of the largest batch.
    var batchTokens: Int { batches.map { $0.reduce(0) { $0 + inputs[$1].count } }.max() ?? 0 }
    var batchRows: Int { batches.map(\.count).max() ?? 0 }

    /// Batches of the indices of inputs that are encoded together, at least one each.
    private static func batches(_ inputs: [[Int32]]) -> [[Int]] {
        var batches = [[Int]]()
        var tokens = 0
        for (index, input) in inputs.enumerated() {
            if batches.isEmpty || tokens + input.count > LanguageModel.encoderBatchTokens {
                batches.append([])
                tokens = 0
            }
            batches[batches.count - 1].append(index)
            tokens += input.count
        }
        return batches
    }
}

/// Runs an encoder over ragged inputs. Its buffers serve one input after another.
final class EncoderPass {
    let runner: StackRunner
    private let blocksPerInput: Int

    /// - Parameters:
    ///   - tokens, rows: of the largest batch.
    ///   - entries: places for inputs, `blocksPerInput` blocks each.
    init(
        _ encoder: TransformerStack, _ model: LanguageModel, tokens: Int, rows: Int, entries: Int, blocksPerInput: Int
    ) throws {
        self.blocksPerInput = blocksPerInput
        runner = try StackRunner(
            encoder, limits: IndexBuffers.Limits(tokens: tokens, rows: rows, blocksPerRow: blocksPerInput),
            layout: CacheLayout(blocks: blocksPerInput * entries, layers: encoder.blocks.count),
            cacheFormat: .dense(model.options.loadDType), sharesCache: true,
            positions: blocksPerInput * KeyValueGeometry.blockSize, options: model.options,
            widening: model.decoder.activationWidths, adapters: model.adapters, adapterSlots: entries,
            extraBackends: model.decoder.backends)
    }

    /// Buffers that are just large enough for these inputs.
    convenience init(_ encoder: TransformerStack, _ model: LanguageModel, _ inputs: EncoderInputs) throws {
        try self.init(
            encoder, model, tokens: inputs.batchTokens, rows: inputs.batchRows, entries: inputs.inputs.count,
            blocksPerInput: inputs.blocksPerInput)
    }

    /// Sets the adapters of the input at a place.
    func setAdapters(_ adapters: AdapterWeights, entry: Int) throws { try runner.adapters.set(adapters, slot: entry) }

    /// Passes the final hidden states [T, E] of each batch to `body`, inputs in order.
    /// - Parameter firstEntry: the place of the first input; the others follow it.
    func run(
        _ inputs: EncoderInputs, firstEntry: Int = 0,
        _ body: (_ encoded: Tensor, _ backend: any Backend, _ call: BatchShape) throws -> Void
    ) throws {
        _ = try runner.adapters.update()
        for batch in inputs.batches {
            let call = fill(inputs, batch, firstEntry)
            guard call.tokens > 0 else { continue }
            try runner.upload()
            let (hidden, backend) = try runner.run(call, embeddedPositions: embeddedPositions(inputs, batch))
            let (encoded, last) = try runner.finish(hidden, on: backend)
            try body(encoded, last, call)
        }
    }

    /// The positions to embed, where padding moves them away from those in the cache.
    private func embeddedPositions(_ inputs: EncoderInputs, _ batch: [Int]) -> [Int32]? {
        guard batch.contains(where: { inputs.starts[$0] != 0 }) else { return nil }
        return batch.flatMap { index in inputs.inputs[index].indices.map { Int32(inputs.starts[index] + $0) } }
    }

    /// Writes the batch's tokens and indices. The cross-attention caches use the same block table.
    private func fill(_ inputs: EncoderInputs, _ batch: [Int], _ firstEntry: Int) -> BatchShape {
        let image = runner.image
        var call = BatchShape(tokens: 0, rows: batch.count, maximumQueryLength: 0, maximumLength: 0)
        for (row, index) in batch.enumerated() {
            let input = inputs.inputs[index]
            image.queryOffsets[row] = Int32(call.tokens)
            image.lengths[row] = Int32(input.count)
            EncoderPass.fillTable(image, row: row, entry: firstEntry + index, blocksPerInput: blocksPerInput)
            for (position, token) in input.enumerated() {
                image.tokens[call.tokens] = token
                image.positions[call.tokens] = Int32(position)
                image.rows[call.tokens] = Int32(row)
                image.adapterSlots[call.tokens] = Int32(firstEntry + index)
                call.tokens += 1
            }
            call.maximumQueryLength = max(call.maximumQueryLength, input.count)
        }
        call.maximumLength = call.maximumQueryLength
        image.queryOffsets[batch.count] = Int32(call.tokens)
        return call
    }

    static func fillTable(_ image: IndexBuffers.Image, row: Int, entry: Int, blocksPerInput: Int) {
        for block in 0..<blocksPerInput {
            image.blockTable()[row * blocksPerInput + block] = Int32(entry * blocksPerInput + block)
        }
    }
}

extension LanguageModel {
    /// The most tokens of encoder inputs that run in one batch, unless a single input is longer.
    package static let encoderBatchTokens = 2048

    /// The encoder's last hidden states, float32 [T, E] on the host: all inputs' tokens one after the other.
    ///
    /// - Parameter padding: as ``SessionRequest/encoderPadding``.
    package func encode(_ inputs: [[Int32]], padding: [Int] = []) throws -> Tensor {
        guard let encoder else { throw ModelError.notEncoderDecoder }
        let result = Tensor.host(.float32, [inputs.reduce(0) { $0 + $1.count }, encoder.description.width])
        var written = 0
        let checked = try EncoderInputs(inputs, padding: padding, of: encoder, vocabularySize: vocabularySize)
        let pass = try EncoderPass(encoder, self, checked)
        for entry in inputs.indices { try pass.setAdapters(adapters.active, entry: entry) }
        try pass.run(checked) { encoded, backend, call in
            let target = result.rows(written..<written + call.tokens)
            written += call.tokens
            var source = encoded
            if encoded.dtype != .float32 {
                source = try backend.allocate(.float32, encoded.shape)
                try backend.convert(encoded, to: source)
            }
            try backend.read(source, into: target.mutableHostBytes)
        }
        return result
    }
}
