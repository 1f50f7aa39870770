/// Reads `tokenizer.json`.
struct TokenizerJSON {
    private let bytes: [UInt8]
    private let root: JSONField

    /// - Parameter file: its name for error messages.
    init(_ bytes: [UInt8], file: String) throws(TokenizerError) {
        try FileText.requireUTF8(bytes, file: file)
        self.bytes = bytes
        let tree = try JSONTree(parsing: bytes, file: file, leavingRaw: ["vocab", "merges"])
        root = JSONField(value: tree, file: file, path: "")
        guard tree.objectValue != nil else {
            throw .invalidField(file: file, field: "(the whole file)", expected: "an object", found: tree.summary)
        }
    }

    func components() throws(TokenizerError) -> Tokenizer.Components {
        var components = Tokenizer.Components(model: try model(root.required("model")))
        for element in try root.child("added_tokens")?.elements() ?? [] {
            components.addedTokens.append(try AddedToken(element))
        }
        components.normalizer = try root.child("normalizer").map { field throws(TokenizerError) in try Normalizer(field) }
        components.preTokenizer = try root.child("pre_tokenizer").map { field throws(TokenizerError) in try PreTokenizer(field) }
        components.postProcessor = try root.child("post_processor").map { field throws(TokenizerError) in try PostProcessor(field)
        }
        components.decoder = try root.child("decoder").map { field throws(TokenizerError) in try Decoder(field) }
        return components
    }

    private func model(_ field: JSONField) throws(TokenizerError) -> TokenModel {
        guard let type = field.child("type") else {
            // Files of the first versions leave the type out.
            return field.child("merges") != nil ? .bytePair(try bytePair(field)) : .unigram(try unigram(field))
        }
        switch try type.string() {
        case "BPE": return .bytePair(try bytePair(field))
        case "Unigram": return .unigram(try unigram(field))
        case let other: throw type.unsupported(other)
        }
    }

    /// A cursor on the list or object that was left unread.
    private func scanner(_ field: JSONField, _ open: UInt8, expected: String) throws(TokenizerError) -> JSONScanner {
        guard case .raw(let range) = field.value else { throw field.invalid(expected: expected) }
        var scanner = JSONScanner(bytes, file: field.file, range: range)
        guard scanner.consume(open) else { throw field.invalid(expected: expected) }
        return scanner
    }
}

// MARK: - BPE

extension TokenizerJSON {
    private func bytePair(_ field: JSONField) throws(TokenizerError) -> BytePairModel {
        var options = BytePairModel.Options()
        options.unknownToken = try field.child("unk_token")?.string()
        options.fusesUnknown = try field.flag("fuse_unk", default: false)
        options.fallsBackToBytes = try field.flag("byte_fallback", default: false)
        options.ignoresMerges = try field.flag("ignore_merges", default: false)
        options.continuingPrefix = try field.child("continuing_subword_prefix")?.string() ?? ""
        options.endSuffix = try field.child("end_of_word_suffix")?.string() ?? ""
        if let dropout = field.child("dropout"), try dropout.double() != 0 { throw dropout.unsupported(dropout.value.summary) }
        let vocabulary = try field.required("vocab")
        let table = try VocabularyReader.table(
            scanner(vocabulary, 0x7B, expected: "an object of tokens and ids"), field: vocabulary.path)
        let list = try field.required("merges")
        var reader = MergeReader(
            table: table, prefixLength: options.continuingPrefix.utf8.count, file: field.file, field: list.path)
        try reader.read(scanner(list, 0x5B, expected: "a list of merges"))
        return BytePairModel(table: table, merges: reader.merges, options: options)
    }
}

/// Reads an object of token texts and ids without a value for each.
enum VocabularyReader {
    /// - Parameter scanner: behind the opening brace.
    static func table(_ scanner: JSONScanner, field: String) throws(TokenizerError) -> TokenTable {
        var scanner = scanner
        var table = TokenTable(capacity: (scanner.end - scanner.position) / 24)
        if scanner.consume(0x7D) { return table }
        var text: [UInt8] = []
        repeat {
            text.removeAll(keepingCapacity: true)
            try scanner.string(into: &text)
            try scanner.expect(0x3A)
            let value = try scanner.integer()
            guard let value, value >= 0, value <= TokenTable.maximumID else {
                throw .invalidField(
                    file: scanner.file, field: "\(field).\(String(decoding: text, as: UTF8.self))",
                    expected: "an id from 0 to \(TokenTable.maximumID)", found: value.map(String.init) ?? "another number")
            }
            text.withUnsafeBufferPointer { table.insert($0, id: Int32(value)) }
        } while try scanner.continues(until: 0x7D)
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

    init(table: TokenTable, prefixLength: Int = 0, file: String, field: String) {
        self.table = table
        self.prefixLength = prefixLength
        self.file = file
        self.field = field
    }

    /// A list of `"a b"` or `["a", "b"]`, the opening bracket consumed.
    mutating func read(_ scanner: JSONScanner) throws(TokenizerError) {
        var scanner = scanner
        merges = MergeTable(capacity: min(table.count, (scanner.end - scanner.position) / 5))
        if scanner.consume(0x5D) { return }
        var text: [UInt8] = []
        repeat {
            text.removeAll(keepingCapacity: true)
            if scanner.consume(0x5B) {
                try scanner.string(into: &text)
                let middle = text.count
                try scanner.expect(0x2C)
                try scanner.string(into: &text)
                try scanner.expect(0x5D)
                try add(text, leftEnd: middle, rightStart: middle)
            } else {
                try scanner.string(into: &text)
                try add(line: text)
            }
        } while try scanner.continues(until: 0x5D)
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
        .invalidField(file: file, field: "\(field)[\(rank)]", expected: expected, found: found)
    }
}

// MARK: - Unigram

extension TokenizerJSON {
    private func unigram(_ field: JSONField) throws(TokenizerError) -> UnigramModel {
        let list = try field.required("vocab")
        var scanner = try scanner(list, 0x5B, expected: "a list of pieces and scores")
        var table = TokenTable(capacity: (scanner.end - scanner.position) / 24)
        var scores: [Double] = []
        var text: [UInt8] = []
        if !scanner.consume(0x5D) {
            repeat {
                text.removeAll(keepingCapacity: true)
                try scanner.expect(0x5B)
                try scanner.string(into: &text)
                try scanner.expect(0x2C)
                let score = try scanner.number().doubleValue ?? 0
                try scanner.expect(0x5D)
                guard scores.count <= TokenTable.maximumID, score.isFinite else {
                    throw .invalidField(
                        file: field.file, field: "\(list.path)[\(scores.count)]", expected: "a finite score", found: "\(score)")
                }
                text.withUnsafeBufferPointer { table.insert($0, id: Int32(scores.count)) }
                scores.append(score)
            } while try scanner.continues(until: 0x5D)
        }
        let unknownID = try field.child("unk_id").map { unknown throws(TokenizerError) in
            guard !scores.isEmpty else { throw unknown.invalid(expected: "null, since the vocabulary is empty") }
            return Int32(try unknown.integer(in: 0...(scores.count - 1)))
        }
        return UnigramModel(
            table: table, scores: scores, unknownID: unknownID, fallsBackToBytes: try field.flag("byte_fallback", default: false))
    }
}
