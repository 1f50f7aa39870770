/// Byte pair encoding: start from single characters, merge the adjacent pair of lowest rank until none is left.
///
/// Sennrich, Haddow, Birch: "Neural Machine Translation of Rare Words with Subword Units" (2016).
struct BytePairModel: Sendable {
    /// Settings of a model beside its vocabulary and merges.
    struct Options: Sendable {
        var unknownToken: String?
        var fusesUnknown = false
        var fallsBackToBytes = false
        var ignoresMerges = false
        var continuingPrefix = ""
        var endSuffix = ""
    }

    let table: TokenTable
    let merges: MergeTable
    let options: Options
    private let unknownID: Int32?
    /// Id of `<0xHH>` for each byte, −1 where it is missing.
    private let byteTokens: [Int32]
    /// Id of the byte-level character of each byte; empty unless the vocabulary has all of them.
    private let byteUnits: [Int32]
    /// Where long words can be split. Only for vocabularies of characters, whose words may be whole texts; byte-level vocabularies
    /// have a word pattern.
    private let seams: MergeSeams?

    init(table: TokenTable, merges: MergeTable, options: Options) {
        self.table = table
        self.merges = merges
        self.options = options
        unknownID = options.unknownToken.flatMap { table.id(of: $0) }
        byteTokens = (0..<256).map { table.id(of: ByteToken.name(UInt8($0))) ?? -1 }
        let units = (0..<256).compactMap { table.id(of: ByteLevelAlphabet.encode([UInt8($0)])) }
        let isPlain = options.continuingPrefix.isEmpty && options.endSuffix.isEmpty
        byteUnits = isPlain && units.count == 256 ? units : []
        seams = units.count < 192 ? MergeSeams(table: table, merges: merges) : nil
    }

    /// Whether words may be given as raw bytes that stand for their byte-level characters.
    var takesBytes: Bool { !byteUnits.isEmpty }

    /// Tokens of one word.
    ///
    /// - Parameter isByteLevel: the bytes stand for their byte-level characters; only if `takesBytes`.
    /// - Complexity: O(n log n) in the bytes of the word.
    func encode(_ word: UnsafeBufferPointer<UInt8>, isByteLevel: Bool, into pieces: inout [ModelPiece]) {
        if options.ignoresMerges, let id = wholeWord(word, isByteLevel) {
            pieces.append(ModelPiece(id: id, length: word.count))
            return
        }
        let start = pieces.count
        if isByteLevel {
            for byte in word { pieces.append(ModelPiece(id: byteUnits[Int(byte)], length: 1)) }
        } else {
            appendCharacterUnits(word, to: &pieces)
        }
        guard let seams, pieces.count - start > MergeTable.scanLimit else { return merges.merge(&pieces, from: start) }
        let units = Array(pieces[start...])
        pieces.removeSubrange(start...)
        for part in seams.parts(of: units) {
            let partStart = pieces.count
            pieces.append(contentsOf: units[part])
            merges.merge(&pieces, from: partStart)
        }
    }

    private func wholeWord(_ word: UnsafeBufferPointer<UInt8>, _ isByteLevel: Bool) -> Int32? {
        isByteLevel ? table.id(of: ByteLevelAlphabet.encode(word)) : table.id(of: word)
    }

    private func appendCharacterUnits(_ word: UnsafeBufferPointer<UInt8>, to pieces: inout [ModelPiece]) {
        var unknown: ModelPiece?
        var index = 0
        while index < word.count {
            let length = UTF8Text.length(ofLead: word[index])
            let unit = Array(word[index..<(index + length)])
            append(unit, length: length, isFirst: index == 0, isLast: index + length == word.count, &unknown, to: &pieces)
            index += length
        }
        flush(&unknown, to: &pieces)
    }

    private func flush(_ unknown: inout ModelPiece?, to pieces: inout [ModelPiece]) {
        if let piece = unknown { pieces.append(piece) }
        unknown = nil
    }

    private func append(
        _ unit: [UInt8], length: Int, isFirst: Bool, isLast: Bool, _ unknown: inout ModelPiece?, to pieces: inout [ModelPiece]
    ) {
        var unit = unit
        if !isFirst, !options.continuingPrefix.isEmpty { unit = Array(options.continuingPrefix.utf8) + unit }
        if isLast, !options.endSuffix.isEmpty { unit += Array(options.endSuffix.utf8) }
        if let id = table.id(of: unit) {
            flush(&unknown, to: &pieces)
            pieces.append(ModelPiece(id: id, length: length))
            return
        }
        if options.fallsBackToBytes, unit.allSatisfy({ byteTokens[Int($0)] >= 0 }) {
            for byte in unit { pieces.append(ModelPiece(id: byteTokens[Int(byte)], length: 1)) }
            return
        }
        guard let unknownID else { return }
        if options.fusesUnknown, unknown != nil {
            unknown!.length += length
        } else {
            flush(&unknown, to: &pieces)
            unknown = ModelPiece(id: unknownID, length: length)
        }
    }
}

/// A token and the number of bytes of the word it covers.
struct ModelPiece: Sendable, Equatable {
    var id: Int32
    var length: Int
}

/// The tokens `<0x00>` … `<0xFF>` that stand for single bytes.
enum ByteToken {
    static func name(_ byte: UInt8) -> String {
        let digits = String(byte, radix: 16, uppercase: true)
        return "<0x\(digits.count < 2 ? "0" : "")\(digits)>"
    }

    /// The byte of `<0xHH>`.
    static func byte(_ text: some Collection<UInt8>) -> UInt8? {
        guard text.count == 6 else { return nil }
        let text = Array(text)
        guard text[0] == UInt8(ascii: "<"), text[1] == UInt8(ascii: "0"), text[2] == UInt8(ascii: "x"),
            text[5] == UInt8(ascii: ">"),
            let high = hexDigit(text[3]), let low = hexDigit(text[4])
        else { return nil }
        return high << 4 | low
    }

    private static func hexDigit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 0x30...0x39: byte - 0x30
        case 0x41...0x46: byte - 0x37
        case 0x61...0x66: byte - 0x57
        default: nil
        }
    }
}
