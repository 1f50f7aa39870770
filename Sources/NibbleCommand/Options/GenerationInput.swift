import Foundation
import Nibble
import NibbleCore
import NibbleTokenizers

/// `{"input_ids": [[…]], "attention_mask": [[…]]}`, the mask optional.
enum TokenIDFile {
    struct FormError: Error, CustomStringConvertible {
        let file: String
        let found: String

        var description: String {
            "\(file): expected {\"input_ids\": rows of ids, \"attention_mask\": rows of 0 and 1 (optional)}, found \(found)"
        }
    }

    /// At least one row. A row may be empty.
    static func read(_ file: String) throws -> BatchEncoding {
        let json = try JSONValue(contentsOf: URL(filePath: file))
        func rows(_ key: String) throws -> [[Int32]]? {
            guard let value = json[key], !value.isNull else { return nil }
            guard let rows = value.array else { throw FormError(file: file, found: "\(key): \(value.kind)") }
            return try rows.map { row in
                guard let ids = row.array else { throw FormError(file: file, found: "a row of \(key): \(row.kind)") }
                return try ids.map { id in
                    guard let number = id.int.flatMap(Int32.init(exactly:)) else {
                        throw FormError(file: file, found: "\(id.encoded(.compact)) in \(key)")
                    }
                    return number
                }
            }
        }
        guard let ids = try rows("input_ids") else { throw FormError(file: file, found: "no input_ids") }
        guard !ids.isEmpty else { throw FormError(file: file, found: "no rows in input_ids") }
        let mask = try rows("attention_mask")
        if let mask, mask.map(\.count) != ids.map(\.count) {
            throw FormError(file: file, found: "an attention_mask of another shape")
        }
        return BatchEncoding(inputIDs: ids, attentionMask: mask ?? [])
    }
}

/// Refuses prompts that the model cannot take.
enum PromptCheck {
    enum PromptError: Error, CustomStringConvertible {
        case tooLong(tokens: Int, limit: Int)
        case empty

        var description: String {
            switch self {
            case .tooLong(let tokens, let limit):
                "the prompt has \(tokens) tokens, but the model has embeddings for \(limit) positions: shorten it"
            case .empty:
                "the prompt is empty, and the model has no start token (bos_token_id) to begin from"
            }
        }
    }

    /// Needs no model.
    /// - Parameter bos: what an empty prompt begins with.
    static func check(_ rows: BatchEncoding, bos: Int32?) throws {
        if bos == nil, rows.inputIDs.contains(where: \.isEmpty) { throw PromptError.empty }
    }

    static func check(_ rows: BatchEncoding, _ pretrained: PretrainedModel, _ tokenizer: Tokenizer?) throws {
        for row in rows.inputIDs {
            guard !pretrained.isEncoderDecoder else { continue }
            if let limit = pretrained.model.positionLimit, row.count > limit {
                throw PromptError.tooLong(tokens: row.count, limit: limit)
            }
            if let limit = tokenizer?.modelMaxLength, row.count > limit {
                Console.error("warning: the prompt has \(row.count) tokens; the model was trained on up to \(limit)")
            }
        }
    }
}
