import NibbleCore

extension Tokenizer {
    /// A tokenizer from GPT-2's two files: `vocab.json` (tokens and ids) and `merges.txt` (a merge a line).
    ///
    /// - Parameter configuration: its class chooses the word pattern (Qwen's or GPT-2's), its flags whether a beginning token is added.
    package convenience init(
        vocabulary: [UInt8], merges: [UInt8], file: String = "vocab.json", mergesFile: String = "merges.txt",
        configuration: TokenizerConfiguration = .init()
    ) throws(TokenizerError) {
        let table = try VocabularyReader.table(vocabulary, file: file)
        try FileText.requireUTF8(merges, file: mergesFile)
        var reader = MergeReader(table: table, file: mergesFile, field: "merges")
        for (index, line) in String(decoding: merges, as: UTF8.self).textLines.enumerated() {
            if line.isEmpty || (index == 0 && line.hasBytePrefix("#version")) { continue }
            reader.place = "line \(index + 1)"
            try reader.add(line: Array(line.utf8))
        }
        var components = Components(model: .bytePair(BytePairModel(table: table, merges: reader.merges, options: .init())))
        let isQwen = configuration.tokenizerClass?.contains("Qwen") ?? false
        components.normalizer = isQwen ? .unicode(.nfc) : nil
        components.preTokenizer = try KnownPatterns.preTokenizer(
            isQwen ? KnownPatterns.qwen2 : nil, addsPrefixSpace: configuration.addsPrefixSpace ?? false, file: file,
            field: "pattern")
        components.postProcessor = nil
        components.decoder = .byteLevel
        components.addsBegin = configuration.addsBeginToken ?? false
        components.addsEnd = configuration.addsEndToken ?? false
        self.init(components, configuration: configuration)
    }
}
