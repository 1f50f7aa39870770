extension Tokenizer {
    /// A tokenizer from GPT-2's two files: `vocab.json` (tokens and ids) and `merges.txt` (a merge a line).
    ///
    /// - Parameter configuration: its class chooses the word pattern (Qwen's or GPT-2's), its flags whether a beginning token is added.
    package convenience init(
        vocabulary: [UInt8], merges: [UInt8], file: String = "vocab.json", mergesFile: String = "merges.txt",
        configuration: TokenizerConfiguration = .init()
    ) throws(TokenizerError) {
        try FileText.requireUTF8(vocabulary, file: file)
        try FileText.requireUTF8(merges, file: mergesFile)
        var scanner = JSONScanner(vocabulary, file: file)
        try scanner.expect(0x7B)
        let table = try VocabularyReader.table(scanner, field: "vocab")
        var reader = MergeReader(table: table, file: mergesFile, field: "merges")
        for (number, line) in merges.split(separator: 0x0A).enumerated() {
            let text = line.last == 0x0D ? line.dropLast() : line
            if text.isEmpty || (number == 0 && text.starts(with: "#version".utf8)) { continue }
            try reader.add(line: Array(text))
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
