public import Foundation
import NibbleCore

/// Loads the tokenizer of a checkpoint folder from any of the supported formats.
public enum AutoTokenizer {
    private static let modelFiles = ["tokenizer.model", "spiece.model", "spm.model"]
    private static let fairseqFile = "sentencepiece.bpe.model"
    private static let marianFiles = ["source.spm", "target.spm"]
    fileprivate static let templateFolder = "additional_chat_templates"

    /// Optional files that ``from(folder:)`` reads beside the tokenizer's own.
    package static let companions = [
        "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "config.json",
    ]

    /// Of the files of a checkpoint, those that ``from(folder:)`` would read.
    package static func files(among names: [String]) -> [String] {
        let pieces = [[fairseqFile, "vocab.json"], [fairseqFile], marianFiles + ["vocab.json"]]
        let sources =
            [["tokenizer.json"]] + modelFiles.map { [$0] } + pieces + [["vocab.json", "merges.txt"], ["tekken.json"]]
        let source = sources.first { $0.allSatisfy(names.contains) } ?? []
        let templates = names.filter { $0.hasPrefix(templateFolder + "/") && $0.hasSuffix(".jinja") }
        return source + companions.filter(names.contains) + templates
    }

    /// The tokenizer in `folder`: `tokenizer.json` if there is one, else a SentencePiece model or tiktoken list, else a translation
    /// model's pieces, else `vocab.json` with `merges.txt`, else `tekken.json`.
    ///
    /// - Throws: `TokenizerError` naming the file and the field that is wrong.
    public static func from(folder: URL) throws -> Tokenizer {
        let configuration = try TokenizerConfiguration(folder: folder)
        let file = folder.appending(path: "tokenizer.json")
        if FileText.exists(file) {
            return try Tokenizer(tokenizerJSON: FileText.read(file), file: file.path, configuration: configuration)
        }
        for name in modelFiles {
            let file = folder.appending(path: name)
            if FileText.exists(file) { return try fromModel(FileText.read(file), file: file.path, configuration) }
        }
        if let tokenizer = try translator(folder, configuration) { return tokenizer }
        let (vocabulary, merges) = (folder.appending(path: "vocab.json"), folder.appending(path: "merges.txt"))
        if FileText.exists(vocabulary), FileText.exists(merges) {
            return try Tokenizer(
                vocabulary: FileText.read(vocabulary), merges: FileText.read(merges), file: vocabulary.path,
                mergesFile: merges.path,
                configuration: configuration)
        }
        let tekken = folder.appending(path: "tekken.json")
        if FileText.exists(tekken) {
            return try Tokenizer(tekken: FileText.read(tekken), file: tekken.path, configuration: configuration)
        }
        throw TokenizerError.noTokenizer(
            folder: folder.path,
            lookedFor: ["tokenizer.json"] + modelFiles + [
                fairseqFile, "source.spm with vocab.json", "vocab.json with merges.txt", "tekken.json",
            ])
    }

    /// The tokenizer of a translation model, or of another that Fairseq trained, whose ids are not those of its SentencePiece model.
    private static func translator(_ folder: URL, _ configuration: TokenizerConfiguration) throws -> Tokenizer? {
        let vocabulary = folder.appending(path: "vocab.json")
        let style = configuration.tokenizerClass.flatMap(LanguageStyle.init)
        for name in [fairseqFile, marianFiles[0]] {
            let pieces = folder.appending(path: name)
            guard FileText.exists(pieces) else { continue }
            guard style == .m2m100 || style == .marian else {
                return try Tokenizer(fairseq: FileText.read(pieces), file: pieces.path, configuration: configuration)
            }
            if configuration.separatesVocabularies {
                let file = folder.appending(path: "tokenizer_config.json").path
                throw TokenizerError.unsupported(file: file, field: "separate_vocabs", found: "true")
            }
            return try Tokenizer(
                sentencePiece: FileText.read(pieces), file: pieces.path, vocabulary: FileText.read(vocabulary),
                vocabularyFile: vocabulary.path, configuration: configuration)
        }
        return nil
    }

    /// A `.model` file is SentencePiece's, or else a tiktoken list.
    private static func fromModel(
        _ bytes: [UInt8], file: String, _ configuration: TokenizerConfiguration
    ) throws(TokenizerError) -> Tokenizer {
        do {
            return try Tokenizer(sentencePiece: bytes, file: file, configuration: configuration)
        } catch TokenizerError.malformedFile {
            do {
                return try Tokenizer(tiktoken: bytes, file: file, configuration: configuration)
            } catch TokenizerError.malformedFile {
                throw TokenizerError.malformedFile(file: file, reason: "neither a SentencePiece model nor a tiktoken list")
            }
        }
    }
}

extension Tokenizer {
    /// A tokenizer from the bytes of a `tokenizer.json`.
    ///
    /// - Parameter file: its name for error messages.
    package convenience init(
        tokenizerJSON bytes: [UInt8], file: String = "tokenizer.json", configuration: TokenizerConfiguration = .init()
    ) throws(TokenizerError) {
        self.init(try TokenizerJSON.components(bytes, file: file), configuration: configuration)
    }
}

extension TokenizerConfiguration {
    /// Reads those of `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json` and the chat templates of a folder
    /// that exist.
    package init(folder: URL) throws(TokenizerError) {
        let file = folder.appending(path: "tokenizer_config.json")
        self = try TokenizerError.reading(file.path) {
            var configuration = TokenizerConfiguration()
            if FileText.exists(file) { configuration = try TokenizerConfiguration(JSONField(contentsOf: file)) }
            if configuration.addedTokens.isEmpty { try configuration.readLegacyFiles(folder) }
            configuration.readModelConfig(folder)
            try configuration.readTemplateFiles(folder)
            return configuration
        }
    }

    private mutating func readLegacyFiles(_ folder: URL) throws {
        let map = folder.appending(path: "special_tokens_map.json")
        if FileText.exists(map) {
            var legacy = TokenizerConfiguration()
            try legacy.readTokens(JSONField(contentsOf: map))
            namedTokens.merge(legacy.namedTokens) { own, _ in own }
            for token in legacy.additionalSpecialTokens
            where !additionalSpecialTokens.contains(where: { $0.content.hasSameBytes(as: token.content) }) {
                additionalSpecialTokens.append(token)
            }
        }
        let added = folder.appending(path: "added_tokens.json")
        guard FileText.exists(added) else { return }
        let special = Set(texts: namedTokens.values.map(\.content) + additionalSpecialTokens.map(\.content))
        for (content, field) in try JSONField(contentsOf: added).members() {
            addedTokens.append(AddedToken(content: content, id: try field.tokenID(), isSpecial: special.contains(content)))
        }
        addedTokens.sort { $0.id < $1.id }
    }

    /// Old translation models name their tokenizer's class in config.json, or leave it to the model's type.
    private mutating func readModelConfig(_ folder: URL) {
        let file = folder.appending(path: "config.json")
        guard tokenizerClass == nil, FileText.exists(file), let config = try? JSONField(contentsOf: file).value else { return }
        let classes = [
            "m2m_100": "M2M100Tokenizer", "mbart": "MBartTokenizer", "marian": "MarianTokenizer", "xglm": "XGLMTokenizer",
        ]
        let named = config["tokenizer_class"]?.string
        if let named, LanguageStyle(tokenizerClass: named) != nil { tokenizerClass = named }
        if named == nil { tokenizerClass = config["model_type"]?.string.flatMap { classes[$0] } }
    }

    private mutating func readTemplateFiles(_ folder: URL) throws {
        let single = folder.appending(path: "chat_template.jinja")
        if FileText.exists(single) { chatTemplates["default"] = try Self.template(single) }
        let more = folder.appending(path: AutoTokenizer.templateFolder)
        let names = (try? FileManager.default.contentsOfDirectory(atPath: more.path)) ?? []
        for name in names.sorted() where name.hasSuffix(".jinja") {
            chatTemplates[String(name.dropLast(".jinja".count))] = try Self.template(more.appending(path: name))
        }
    }

    private static func template(_ url: URL) throws -> String {
        let bytes = try FileText.read(url)
        try FileText.requireUTF8(bytes, file: url.path)
        return String(decoding: bytes, as: UTF8.self)
    }
}
