import NibbleCheckpoint
import NibbleTokenizers

extension GGUFVocabulary {
    /// The tokenizer in a GGUF file's metadata.
    /// - Throws: `TokenizerError` that names a key that is missing or has another type.
    init(_ file: GGUFFile) throws(TokenizerError) {
        let reader = GGUFTokenizerReader(file)
        self.init(
            model: try reader.required("model", "a string", \.string),
            tokens: try reader.required("tokens", "a list of strings", \.strings),
            file: file.url.path)
        pre = try reader.optional("pre", "a string", \.string)
        merges =
            model == "gpt2"
            ? try reader.required("merges", "a list of strings", \.strings)
            : try reader.optional("merges", "a list of strings", \.strings) ?? []
        scores = try reader.optional("scores", "a list of numbers", \.doubles)?.map { Float($0) } ?? []
        tokenTypes = try reader.optional("token_type", "a list of kinds") { $0.ints.flatMap { $0.allExactly(Int32.self) } } ?? []
        bosID = try reader.id("bos_token_id")
        eosID = try reader.id("eos_token_id")
        unknownID = try reader.id("unknown_token_id")
        paddingID = try reader.id("padding_token_id")
        addsBos = try reader.optional("add_bos_token", "true or false", \.bool)
        addsEos = try reader.optional("add_eos_token", "true or false", \.bool)
        addsSpacePrefix = try reader.optional("add_space_prefix", "true or false", \.bool)
        removesExtraWhitespaces = try reader.optional("remove_extra_whitespaces", "true or false", \.bool)
        precompiledCharsMap =
            try reader.optional("precompiled_charsmap", "a list of bytes") { value in
                value.ints.flatMap { $0.map { $0 & 0xFF }.allExactly(UInt8.self) }
            } ?? []
        chatTemplate = file.metadata["tokenizer.chat_template"]?.string
    }
}

/// Typed access to the keys `tokenizer.ggml.*`.
private struct GGUFTokenizerReader {
    let file: GGUFFile

    init(_ file: GGUFFile) { self.file = file }

    func optional<Value>(
        _ name: String, _ expected: String, _ convert: (GGUFValue) -> Value?
    ) throws(TokenizerError) -> Value? {
        guard let found = file.metadata["tokenizer.ggml.\(name)"] else { return nil }
        guard let value = convert(found) else { throw error(name, expected, found: "another kind of value") }
        return value
    }

    func required<Value>(
        _ name: String, _ expected: String, _ convert: (GGUFValue) -> Value?
    ) throws(TokenizerError) -> Value {
        guard let value = try optional(name, expected, convert) else { throw error(name, expected, found: "nothing") }
        return value
    }

    func id(_ name: String) throws(TokenizerError) -> Int32? {
        try optional(name, "a token's id") { $0.int.flatMap(Int32.init(exactly:)) }
    }

    private func error(_ name: String, _ expected: String, found: String) -> TokenizerError {
        .invalidField(file: file.url.path, field: "tokenizer.ggml.\(name)", expected: expected, found: found)
    }
}

extension [Int] {
    /// `nil` if one does not fit.
    fileprivate func allExactly<Integer: FixedWidthInteger>(_: Integer.Type) -> [Integer]? {
        let fitting = compactMap(Integer.init(exactly:))
        return fitting.count == count ? fitting : nil
    }
}
