package import NibbleCore

/// Runs an encoder over ragged inputs, several at a time.
final class EncoderPass {
    let runner: StackRunner
    private let inputs: [[Int32]]
    /// Position of each input's first token.
    private let starts: [Int]
    private let batches: [[Int]]
    private let blocksPerInput: Int

    init(
        _ encoder: TransformerStack, _ inputs: [[Int32]], padding: [Int], _ model: LanguageModel, blocksPerInput: Int
    ) throws {
        for token in inputs.joined() where token < 0 || token >= model.vocabularySize {
            throw ModelError.tokenOutOfRange(token: token, vocabularySize: model.vocabularySize)
        }
        self.inputs = inputs
        let counts = encoder.description.countsPadding && padding.count == inputs.count
        starts = counts ? padding.map { max($0, 0) } : Array(repeating: 0, count: inputs.count)
        for (start, input) in zip(starts, inputs) { try encoder.embedding.validate(positions: start + input.count) }
        self.blocksPerInput = blocksPerInput
        batches = EncoderPass.batches(inputs)
        let limits = IndexBuffers.Limits(
            tokens: batches.map { $0.reduce(0) { $0 + inputs[$1].count } }.max() ?? 0, rows: batches.map(\.count).max() ?? 0,
            blocksPerRow: blocksPerInput)
        runner = try StackRunner(
            encoder, limits: limits, layout: CacheLayout(blocks: blocksPerInput * inputs.count, layers: encoder.blocks.count),
            cacheFormat: .dense(model.options.loadDType), sharesCache: true,
            positions: inputs.map(\.count).max() ?? 0, options: model.options, widening: model.decoder.activationWidths,
            extraBackends: model.decoder.backends)
    }

    static func blocksPerInput(_ inputs: [[Int32]]) -> Int {
        max(KeyValueGeometry.blocks(for: inputs.map(\.count).max() ?? 0), 1)
    }

    /// Passes the final hidden states [T, E] of each batch to `body`, inputs in order.
    func forEachBatch(_ body: (_ encoded: Tensor, _ backend: any Backend, _ call: BatchShape) throws -> Void) throws {
        for batch in batches {
            let call = fill(runner.image, batch)
            guard call.tokens > 0 else { continue }
            try runner.upload()
            let (hidden, backend) = try runner.run(call, embeddedPositions: embeddedPositions(batch))
            let (encoded, last) = try runner.finish(hidden, on: backend)
            try body(encoded, last, call)
        }
    }

    /// The positions to embed, where padding moves them away from those in the cache.
    private func embeddedPositions(_ batch: [Int]) -> [Int32]? {
        guard batch.contains(where: { starts[$0] != 0 }) else { return nil }
        return batch.flatMap { index in inputs[index].indices.map { Int32(starts[index] + $0) } }
    }

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

    /// Writes the batch's tokens and indices. The cross-attention caches use the same block table.
    private func fill(_ image: IndexBuffers.Image, _ batch: [Int]) -> BatchShape {
        var call = BatchShape(tokens: 0, rows: batch.count, maximumQueryLength: 0, maximumLength: 0)
        for (row, index) in batch.enumerated() {
            image.queryOffsets[row] = Int32(call.tokens)
            image.lengths[row] = Int32(inputs[index].count)
            EncoderPass.fillTable(image, row: row, input: index, blocksPerInput: blocksPerInput)
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

    static func fillTable(_ image: IndexBuffers.Image, row: Int, input: Int, blocksPerInput: Int) {
        for block in 0..<blocksPerInput {
            image.blockTable()[row * blocksPerInput + block] = Int32(input * blocksPerInput + block)
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
        let run = try EncoderPass(
            encoder, inputs, padding: padding, self, blocksPerInput: EncoderPass.blocksPerInput(inputs))
        try run.forEachBatch { encoded, backend, call in
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
