import Foundation
import NibbleTokenizers

/// Tokenizers for tests, written out as `tokenizer.json`.
enum SmallTokenizer {
    /// BPE over single letters `a`–`z`, a few words and what else `vocabulary` names.
    static func json(
        vocabulary: [String] = letters, merges: String = "[]", model: String = "", added: String = "[]",
        normalizer: String = "null",
        preTokenizer: String = "null", postProcessor: String = "null", decoder: String = "null"
    ) -> String {
        let entries = vocabulary.enumerated().map { "\(quoted($1)):\($0)" }.joined(separator: ",")
        return """
            {"version":"1.0","truncation":null,"padding":null,"added_tokens":\(added),"normalizer":\(normalizer),
            "pre_tokenizer":\(preTokenizer),"post_processor":\(postProcessor),"decoder":\(decoder),
            "model":{"type":"BPE"\(model),"vocab":{\(entries)},"merges":\(merges)}}
            """
    }

    static func make(_ json: String, configuration: TokenizerConfiguration = .init()) throws -> Tokenizer {
        try Tokenizer(tokenizerJSON: Array(json.utf8), file: "small.json", configuration: configuration)
    }

    static let letters = "abcdefghijklmnopqrstuvwxyz".map { String($0) } + ["▁", " ", "<", ">", "A"]

    static func quoted(_ text: String) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": out += "\\\(scalar)"
            case "\u{0}"..<" ":
                out +=
                    "\\u" + String(repeating: "0", count: 4 - String(scalar.value, radix: 16).count)
                    + String(scalar.value, radix: 16)
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out + "\""
    }
}
