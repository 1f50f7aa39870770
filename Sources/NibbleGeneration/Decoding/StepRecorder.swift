internal import NibbleModels

/// Keeps the scores and logits of each step, if the configuration asks for them.
struct StepRecorder {
    private(set) var scores: [[Float]]?
    private(set) var logits: [[Float]]?

    init(_ config: GenerationConfig) {
        scores = config.outputScores ?? false ? [] : nil
        logits = config.outputLogits ?? false ? [] : nil
    }

    var isRecording: Bool { scores != nil || logits != nil }

    /// - Parameters:
    ///   - rows: the decoding row of each row of `batch`.
    ///   - total: the number of decoding rows.
    mutating func recordLogits(_ batch: LogitsBatch, rows: [Int], total: Int) {
        logits?.append(Self.copy(batch, rows, total))
    }

    mutating func recordScores(_ batch: LogitsBatch, rows: [Int], total: Int) {
        scores?.append(Self.copy(batch, rows, total))
    }

    private static func copy(_ batch: LogitsBatch, _ rows: [Int], _ total: Int) -> [Float] {
        let width = batch.vocabularySize
        var copy = [Float](repeating: .nan, count: total * width)
        for (index, row) in rows.enumerated() { copy.replaceSubrange(row * width..<(row + 1) * width, with: batch[index]) }
        return copy
    }
}
