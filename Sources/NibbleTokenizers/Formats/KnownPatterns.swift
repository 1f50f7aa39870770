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
    static let qwen35 =
        #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
    static let seedCoder =
        #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"#
    static let bailing =
        #"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"#
    /// Applied one after the other, as are the next two. The second is the letters that have a case, but for mathematical ones.
    static let deepSeek = [
        #"[\r\n]"#, #"\s?(?:(?![\#u{1D400}-\#u{1D7FF}])[\p{Lu}\p{Ll}\p{Lt}])+"#,
        #"\s?[!-/:-~\#u{FF01}-\#u{FF0F}\#u{FF1A}-\#u{FF5E}\#u{2018}-\#u{201F}\#u{3000}-\#u{3002}]+"#, #"\s+(?![\s\S])"#,
        deepSeekCJK,
        #"\p{N}+"#,
    ]
    static let deepSeekCoder = [#"[\r\n]"#, #"\s?\p{L}+"#, #"\s?\p{P}+"#, deepSeekCJK, #"\p{N}"#]
    static let deepSeek3 = [
        #"\p{N}{1,3}"#, #"[\#u{4E00}-\#u{9FA5}\#u{3040}-\#u{30FF}]+"#,
        #"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#,
    ]
    private static let deepSeekCJK = #"[\#u{800}-\#u{9FA5}\#u{AC00}-\#u{D7FF}]+"#
    static let bloom = #" ?[^(\s|[.,!?…。，、।۔،])]+"#

    /// The byte-level pre-tokenizer that cuts with `pattern`, or with GPT-2's own where it is `nil`.
    static func preTokenizer(
        _ pattern: String?, addsPrefixSpace: Bool = false, file: String, field: String
    ) throws(TokenizerError) -> PreTokenizer {
        guard let pattern else { return .byteLevel(addsPrefixSpace: addsPrefixSpace, splits: true) }
        let split = try split(pattern, file: file, field: field)
        return .sequence([split, .byteLevel(addsPrefixSpace: false, splits: false)])
    }

    /// Makes each match of `pattern` a piece, and what lies between two matches another.
    static func split(_ pattern: String, file: String, field: String) throws(TokenizerError) -> PreTokenizer {
        do {
            return .split(.regex(try Pattern(pattern)), .isolated, isInverted: false)
        } catch {
            throw .unsupportedPattern(file: file, field: field, pattern: pattern, syntax: error.syntax)
        }
    }
}
