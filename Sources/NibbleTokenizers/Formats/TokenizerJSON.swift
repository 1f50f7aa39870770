import NibbleCore

/// Reads `tokenizer.json`. The vocabulary and the merges, which are most of the file, are read from the text without a value
/// for each entry.
struct TokenizerJSON {
    private let text: UnsafeRawBufferPointer
    private let file: String
    /// The file without the model's large members.
    private let root: JSONField
    private let vocabulary: Range<Int>?
    private let merges: Range<Int>?

    /// - Parameter file: its name for error messages.
    static func components(_ bytes: [UInt8], file: String) throws(TokenizerError) -> Tokenizer.Components {
        try FileText.requireUTF8(bytes, file: file)
        return try TokenizerError.reading(file) {
            try bytes.withUnsafeBytes { try TokenizerJSON($0, file: file).components() }
        }
    }

    private init(_ text: UnsafeRawBufferPointer, file: String) throws {
        var reader = JSONReader(text, options: .validUTF8)
        var members = JSONObject()
        var large: [String: Range<Int>] = [:]
        try reader.object { key, reader in
            guard key == "model", reader.peek() == UInt8(ascii: "{") else {
                members[key] = try reader.value()
                return
            }
            var model = JSONObject()
            try reader.object { key, reader in
                if key == "vocab" || key == "merges" {
                    large[key] = try reader.skip()
                } else {
                    model[key] = try reader.value()
                }
            }
            members[key] = .object(model)
        }
        try reader.finish()
        self.text = text
        self.file = file
        root = JSONField(.object(members), file: file)
        vocabulary = large["vocab"]
        merges = large["merges"]
    }

    private func components() throws -> Tokenizer.Components {
        var components = Tokenizer.Components(model: try model(root.required("model")))
        for element in try root.child("added_tokens")?.elements() ?? [] {
            components.addedTokens.append(try AddedToken(element))
        }
        components.normalizer = try root.child("normalizer").map { try Normalizer($0) }
        components.preTokenizer = try root.child("pre_tokenizer").map { try PreTokenizer($0) }
        components.postProcessor = try root.child("post_processor").map { try PostProcessor($0) }
        components.decoder = try root.child("decoder").map { try Decoder($0) }
        return components
    }

    private func model(_ field: JSONField) throws -> TokenModel {
        guard let type = field.child("type") else {
            // The first versions of the format have no type.
            return merges != nil ? .bytePair(try bytePair(field)) : .unigram(try unigram(field))
        }
        switch try type.string() {
        case "BPE": return .bytePair(try bytePair(field))
        case "Unigram": return .unigram(try unigram(field))
        case let other: throw type.unsupported(other)
        }
    }

    /// Reads the model's member `key`, which stands at `range`.
    private func read<T>(_ key: String, at range: Range<Int>?, _ body: (inout JSONReader) throws -> T) throws -> T {
        guard let range else { throw JSONError.missing(file: file, path: "model.\(key)") }
        var reader = JSONReader(text, options: .validUTF8, range: range)
        do { return try body(&reader) } catch let error as JSONError { throw error.within(key).within("model") }
    }
}

// MARK: - BPE

extension TokenizerJSON {
    private func bytePair(_ field: JSONField) throws -> BytePairModel {
        var options = BytePairModel.Options()
        options.unknownToken = try field.child("unk_token")?.string()
        options.fusesUnknown = try field.flag("fuse_unk", default: false)
        options.fallsBackToBytes = try field.flag("byte_fallback", default: false)
        options.ignoresMerges = try field.flag("ignore_merges", default: false)
        options.continuingPrefix = try field.child("continuing_subword_prefix")?.string() ?? ""
        options.endSuffix = try field.child("end_of_word_suffix")?.string() ?? ""
        // Dropout leaves merges out at random while a model is trained. Prompts are encoded without it.
        _ = try field.child("dropout")?.double()
        let table = try read("vocab", at: vocabulary) { try VocabularyReader.table(&$0, file: file, field: "model.vocab") }
        var reader = MergeReader(
            table: table, prefixLength: options.continuingPrefix.utf8.count, file: file, field: "model.merges")
        try read("merges", at: merges) { try reader.read(&$0) }
        return BytePairModel(table: table, merges: reader.merges, options: options)
    }
}

/// Reads an object of token texts and ids without a value for each.
enum VocabularyReader {
    /// The content of a `vocab.json`.
    static func table(_ bytes: [UInt8], file: String) throws(TokenizerError) -> TokenTable {
        try FileText.requireUTF8(bytes, file: file)
        return try TokenizerError.reading(file) {
            try bytes.withUnsafeBytes { text in
                var reader = JSONReader(text, options: .validUTF8)
                let table = try table(&reader, file: file, field: "")
                try reader.finish()
                return table
            }
        }
    }

    /// - Parameter field: its path in the file, for errors.
    static func table(_ reader: inout JSONReader, file: String, field: String) throws -> TokenTable {
        var table = TokenTable(capacity: reader.remaining / 24)
        try reader.objectOfBytes { text, reader in
            let value = try reader.value()
            guard case .int(let id) = value, id >= 0, id <= TokenTable.maximumID else {
                throw JSONError.unexpected(
                    file: file, path: JSONPath.member(String(decoding: text, as: UTF8.self), of: field),
                    expected: "an id from 0 to \(TokenTable.maximumID)", found: value.summary)
            }
            table.insert(text, id: Int32(id))
        }
        return table
    }
}

/// Reads merges into a table; each must join two tokens of the vocabulary into a third.
struct MergeReader {
    private let table: TokenTable
    private let prefixLength: Int
    private let file: String
    private let field: String
    private(set) var merges = MergeTable()
    private var rank: Int32 = 0
    private var joined: [UInt8] = []
    private var lastResult: Int32 = -1
    /// Where the next merge stands, for errors; `nil` for its index in the field.
    var place: String?

    init(table: TokenTable, prefixLength: Int = 0, file: String, field: String) {
        self.table = table
        self.prefixLength = prefixLength
        self.file = file
        self.field = field
    }

    /// A list of `"a b"` or `["a", "b"]`.
    mutating func read(_ reader: inout JSONReader) throws {
        merges = MergeTable(capacity: min(table.count, reader.remaining / 5))
        var text: [UInt8] = []
        try reader.array { reader in
            text.removeAll(keepingCapacity: true)
            guard reader.peek() == UInt8(ascii: "[") else {
                try reader.string(into: &text)
                return try add(line: text)
            }
            var (count, middle) = (0, 0)
            try reader.array {
                middle = text.count
                try $0.string(into: &text)
                count += 1
            }
            guard count == 2 else { throw failure("two tokens", "\(count)") }
            try add(text, leftEnd: middle, rightStart: middle)
        }
    }

    /// `a b`, split at its one space.
    mutating func add(line text: [UInt8]) throws(TokenizerError) {
        guard let space = text.firstIndex(of: 0x20), !text[(space + 1)...].contains(0x20) else {
            throw failure("two tokens with one space between", String(decoding: text, as: UTF8.self))
        }
        try add(text, leftEnd: space, rightStart: space + 1)
    }

    mutating func add(_ text: [UInt8], leftEnd: Int, rightStart: Int) throws(TokenizerError) {
        let left = text[..<leftEnd]
        let right = text[rightStart...]
        let leftID = try id(left)
        let rightID = try id(right)
        joined.removeAll(keepingCapacity: true)
        joined.append(contentsOf: left)
        joined.append(contentsOf: right.dropFirst(prefixLength))
        guard let result = joined.withUnsafeBufferPointer({ table.id(of: $0, after: lastResult) }) else {
            throw missing(joined[...])
        }
        lastResult = result
        merges.insert(leftID, rightID, .init(rank: rank, result: result))
        rank += 1
    }

    private func id(_ text: ArraySlice<UInt8>) throws(TokenizerError) -> Int32 {
        guard let id = text.withUnsafeBufferPointer({ table.id(of: $0) }) else {
            throw missing(text)
        }
        return id
    }

    private func missing(_ text: ArraySlice<UInt8>) -> TokenizerError {
        failure("tokens of the vocabulary", "'\(String(decoding: text.prefix(80), as: UTF8.self))', which is not in it")
    }

    private func failure(_ expected: String, _ found: String) -> TokenizerError {
        .invalidField(file: file, field: place ?? "\(field)[\(rank)]", expected: expected, found: found)
    }
}

// MARK: - Unigram

extension TokenizerJSON {
    private func unigram(_ field: JSONField) throws -> UnigramModel {
        let (table, scores) = try read("vocab", at: vocabulary) { try pieces(&$0) }
        let unknownID = try field.child("unk_id").map { unknown in
            guard !scores.isEmpty else { throw unknown.unexpected("null, since the vocabulary is empty") }
            return Int32(try unknown.integer(in: 0...(scores.count - 1)))
        }
        return UnigramModel(
            table: table, scores: scores, unknownID: unknownID, fallsBackToBytes: try field.flag("byte_fallback", default: false))
    }

    /// A list of `["piece", score]`.
    private func pieces(_ reader: inout JSONReader) throws -> (TokenTable, [Double]) {
        var table = TokenTable(capacity: reader.remaining / 24)
        var scores: [Double] = []
        var text: [UInt8] = []
        try reader.array { reader in
            text.removeAll(keepingCapacity: true)
            var count = 0
            var score = 0.0
            try reader.array { reader in
                if count == 0 { try reader.string(into: &text) } else { score = try reader.double() }
                count += 1
            }
            guard count == 2, scores.count <= TokenTable.maximumID, score.isFinite else {
                throw JSONError.unexpected(
                    file: file, path: JSONPath.element(scores.count, of: "model.vocab"), expected: "a piece and a finite score",
                    found: count == 2 ? "the score \(score)" : "\(count) values")
            }
            text.withUnsafeBufferPointer { table.insert($0, id: Int32(scores.count)) }
            scores.append(score)
        }
        return (table, scores)
    }
}
