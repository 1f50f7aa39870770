/// The word patterns of model families whose files do not contain them.
enum KnownPatterns {
    static let llama3 =
        #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
    static let qwen2 =
        #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
    static let tekken =
        #"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
    static let gpt4o =
        #"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
    static let bloom = #" ?[^(\s|[.,!?…。，、।۔،])]+"#

    /// The byte-level pre-tokenizer that cuts with `pattern`, or with GPT-2's own where it is `nil`.
    static func preTokenizer(
        _ pattern: String?, addsPrefixSpace: Bool = false, file: String, field: String
    ) throws(TokenizerError) -> PreTokenizer {
        guard let pattern else { return .byteLevel(addsPrefixSpace: addsPrefixSpace, splits: true) }
        do {
            let split = PreTokenizer.split(.regex(try Pattern(pattern)), .isolated, isInverted: false)
            return .sequence([split, .byteLevel(addsPrefixSpace: false, splits: false)])
        } catch {
            throw .unsupportedPattern(file: file, field: field, pattern: pattern, syntax: error.syntax)
        }
    }
}
