import NibbleCore

/// How the hidden states of a text become one vector.
package enum Pooling: String, Sendable, CaseIterable {
    /// That of the last token.
    case last
    /// The mean of all.
    case mean
}

/// Turns texts into vectors: the hidden states after the final norm, pooled. It has a cache and buffers of its own, beside those
/// of sessions and executors, but shares the devices with them: it is for the thread that runs their steps.
package final class EmbeddingPass {
    private let pass: DecoderPass
    private let chunkTokens: Int
    private let blocks: [Int32]

    /// - Parameter capacity: tokens of the longest text.
    /// - Throws: ``ModelError/encoderInputsMissing`` for an encoder-decoder; `BackendError` where memory runs out.
    package init(_ model: LanguageModel, capacity: Int) throws {
        guard model.encoder == nil else { throw ModelError.encoderInputsMissing }
        let capacity = max(capacity, 1)
        // Other streams decode between two chunks.
        chunkTokens = min(model.options.chunkTokens, SessionOptions.defaultChunkTokens, capacity)
        let count = KeyValueGeometry.blocks(for: capacity)
        blocks = (0..<Int32(count)).map { $0 }
        pass = try DecoderPass(
            model,
            SessionShape(
                rows: 1, chunkTokens: chunkTokens, context: capacity,
                // Every position is kept, whatever windows layers have.
                layout: CacheLayout(model.decoder.description.layers, limit: 0) { $0 == .state ? 2 : count },
                cacheFormat: model.options.cacheFormat))
    }

    /// A text on its way through the model.
    package struct Text {
        let tokens: [Int32]
        let pooling: Pooling
        var position = 0
        var sum: [Float] = []

        let adapters: AdapterWeights

        /// - Parameters:
        ///   - tokens: at least one, none outside of the vocabulary.
        ///   - pooling: how the hidden states become the vector.
        ///   - adapters: what the text uses.
        package init(_ tokens: [Int32], _ pooling: Pooling, adapters: AdapterWeights = [:]) {
            self.tokens = tokens
            self.pooling = pooling
            self.adapters = adapters
        }
    }

    /// Runs the next chunk of a text. Texts follow each other; one ends before the next begins.
    /// - Returns: the vector [E] once the whole text has run.
    package func run(_ text: inout Text) throws -> [Float]? {
        let end = min(text.position + chunkTokens, text.tokens.count)
        let isLast = end == text.tokens.count
        if text.position == 0 { try pass.runner.adapters.set(text.adapters, slot: 0) }
        var image = try pass.begin(maximumLength: end, rotaryLength: text.tokens.count, isStep: false)
        let wanted: CallImage.Wanted = text.pooling == .mean ? .all : isLast ? .last : .none
        image.addRow(text.tokens[text.position..<end], start: text.position, wanted: wanted)
        let layout = pass.shape.layout
        if layout.keyValueTables > 0 { image.setBlocks(blocks[..<KeyValueGeometry.blocks(for: end)]) }
        if layout.stateTable != nil {
            let isOdd = text.position / chunkTokens % 2 == 1
            let (source, target): (Int32, Int32) = isOdd ? (0, 1) : (1, 0)
            image.setState(.init(source: text.position == 0 ? nil : source, target: target), next: nil)
        }
        try pass.run(image, nil)
        text.position = end
        if image.selected > 0 { add(try pass.readHidden(image.selected), to: &text) }
        guard isLast else { return nil }
        let count = text.pooling == .mean ? Float(text.tokens.count) : 1
        return text.sum.map { $0 / count }
    }

    /// Adds the rows of `hidden`, float32 [n, E].
    private func add(_ hidden: Tensor, to text: inout Text) {
        let width = hidden.shape[1]
        if text.sum.isEmpty { text.sum = Array(repeating: 0, count: width) }
        let values = hidden.hostElements(Float.self)
        for row in 0..<hidden.shape[0] {
            for column in 0..<width { text.sum[column] += values[row * width + column] }
        }
    }
}

extension LanguageModel {
    /// Numbers in the vectors of an ``EmbeddingPass``; `nil` for encoder-decoders.
    package var embeddingWidth: Int? {
        encoder == nil ? decoder.projectOut?.layer.outFeatures ?? decoder.description.width : nil
    }
}
