import NibbleCore
import NibbleModels

/// The result of a forward pass over whole rows.
public struct ForwardOutput: Sendable {
    /// Scores of the next token, float32 [B, T, V]. Masked positions hold zeros.
    public let logits: Tensor
    /// Encoder-decoders: the encoder's output, float32 [B, S, E]. Masked positions hold zeros.
    public let encoderLastHiddenState: Tensor?
}

extension PretrainedModel {
    /// Runs the model once over padded rows.
    ///
    /// Masked positions are not computed; a row's result does not depend on its padding.
    /// - Parameters:
    ///   - inputIDs: token ids [B, T]; the encoder's input (then T is S) for an encoder-decoder.
    ///   - attentionMask: 0 or 1 for each position [B, T]. `nil`: all 1.
    ///   - decoderInputIDs: token ids [B, T], for encoder-decoders only.
    /// - Throws: ``ForwardError``, ``SessionError``, ``ModelError``, ``BackendError``.
    public func forward(
        inputIDs: [[Int32]], attentionMask: [[Int32]]? = nil, decoderInputIDs: [[Int32]]? = nil
    ) throws -> ForwardOutput {
        let kept = try zip(inputIDs, attentionMask ?? inputIDs.map { $0.map { _ in 1 } }).map { ids, mask in
            guard ids.count == mask.count else { throw ForwardError.maskShape(expected: ids.count, found: mask.count) }
            return ids.indices.filter { mask[$0] != 0 }
        }
        let stripped = zip(inputIDs, kept).map { ids, kept in kept.map { ids[$0] } }
        guard isEncoderDecoder else {
            return ForwardOutput(
                logits: try logits(
                    of: stripped, at: kept, width: inputIDs.map(\.count).max() ?? 0,
                    request: { rows, capacity in
                        SessionRequest(rows: rows, capacity: capacity)
                    }), encoderLastHiddenState: nil)
        }
        guard let decoderInputIDs, decoderInputIDs.count == inputIDs.count else { throw ForwardError.decoderInputsMissing }
        let padding = kept.map { $0.first ?? 0 }
        let positions = decoderInputIDs.map { Array($0.indices) }
        let logits = try logits(
            of: decoderInputIDs, at: positions, width: decoderInputIDs.map(\.count).max() ?? 0,
            request: { rows, capacity in
                SessionRequest(rows: rows, capacity: capacity, encoderInputs: stripped, encoderPadding: padding)
            })
        let encoded = try model.encode(stripped, padding: padding)
        return ForwardOutput(
            logits: logits,
            encoderLastHiddenState: scattered(
                encoded, at: kept, rows: inputIDs.count, width: inputIDs.map(\.count).max() ?? 0))
    }

    private func logits(
        of rows: [[Int32]], at positions: [[Int]], width: Int, request: (_ rows: Int, _ capacity: Int) -> SessionRequest
    ) throws -> Tensor {
        let session = try model.makeSession(request(rows.count, max(rows.map(\.count).max() ?? 0, 1)))
        let inputs = rows.enumerated().filter { !$1.isEmpty }.map { RowTokens(row: $0, tokens: $1) }
        return try session.feed(inputs, logits: .all) { batch in
            let flat = Tensor.host(.float32, [batch.rows, batch.vocabularySize])
            flat.mutableHostBytes.copyMemory(
                from: UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(batch.values)[..<flat.byteCount]))
            return scattered(flat, at: positions, rows: rows.count, width: width)
        }
    }

    /// Copies the rows of `flat` [n, W] to `positions` of a tensor of zeros [rows, width, W].
    private func scattered(_ flat: Tensor, at positions: [[Int]], rows: Int, width: Int) -> Tensor {
        let size = flat.shape[1]
        let result = Tensor.host(.float32, [rows, width, size])
        let target = result.mutableHostElements(Float.self)
        target.initialize(repeating: 0)
        let source = flat.hostElements(Float.self)
        var index = 0
        for (row, places) in positions.enumerated() {
            for place in places {
                for column in 0..<size { target[(row * width + place) * size + column] = source[index * size + column] }
                index += 1
            }
        }
        return result
    }
}

/// Why the inputs of a forward pass do not fit.
public enum ForwardError: Error, Sendable, Equatable, CustomStringConvertible {
    /// A row of the mask has another length than the row of ids.
    case maskShape(expected: Int, found: Int)
    /// An encoder-decoder got no decoder ids, or not one row for each input.
    case decoderInputsMissing

    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .maskShape(let expected, let found): "attention_mask has rows of \(found), input_ids of \(expected)"
        case .decoderInputsMissing: "an encoder-decoder needs decoder_input_ids, one row for each row of input_ids"
        }
    }
}
