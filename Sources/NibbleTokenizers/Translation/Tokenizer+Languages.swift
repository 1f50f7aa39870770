extension Tokenizer {
    /// The codes of the languages that texts and answers can be marked with (`ko`, `kor_Hang`, `ko_KR` …); empty for tokenizers of
    /// other than translation models.
    public var languages: [String] { markedLanguages?.codes ?? [] }

    /// Whether an answer has no language unless one is chosen.
    package var needsTargetLanguage: Bool { !languages.isEmpty && markedLanguages?.style.forcesTarget == true }

    /// This tokenizer for translations: transformers' `src_lang` and `tgt_lang`.
    ///
    /// Texts are marked with their language as the model expects it. A batch of them makes `generate` begin the answers with the
    /// target language (`forced_bos_token_id`); models that read the target before the text (Marian) get it there.
    /// - Parameters:
    ///   - source: the language of the texts. `nil`: as now. Marian has no token for it.
    ///   - target: the language of the answers. `nil`: as now.
    /// - Throws: ``TokenizerError/unknownLanguage(_:near:)``; ``TokenizerError/noLanguages`` if the model has none to choose from.
    public func translating(from source: String? = nil, to target: String? = nil) throws -> Tokenizer {
        guard source != nil || target != nil else { return self }
        guard let languages = markedLanguages, !languages.codes.isEmpty else { throw TokenizerError.noLanguages }
        let mark = languages.style == .marian ? target : source
        let processor = try mark.map { languages.template(try languages.token($0)) } ?? postProcessor
        var forced = forcedBosTokenID
        if languages.style.forcesTarget, let target { forced = try languages.token(target).id }
        return Tokenizer(self, postProcessor: processor, forcedBosTokenID: forced)
    }
}
