/// A SentencePiece model: pieces with scores and the settings of its trainer and normalizer.
///
/// Read from a `.model` file (the protocol buffers message `ModelProto`) or put together from a GGUF file's values.
struct SentencePieceModel: Sendable {
    enum Kind: Int, Sendable {
        case normal = 1
        case unknown, control, userDefined, unused, byte
    }

    struct Piece: Sendable {
        var text: String
        var score: Float = 0
        var kind = Kind.normal
    }

    /// Pieces longer than this do not occur; splitting one costs the square of its length.
    static let maximumPieceLength = 512

    var file: String
    var pieces: [Piece] = []
    var isBytePair = false
    var fallsBackToBytes = false
    var unknownID: Int32? = 0
    var beginID: Int32? = 1
    var endID: Int32? = 2
    var padID: Int32?
    var charsMap: [UInt8] = []
    var addsDummyPrefix = true
    var removesExtraSpaces = true

    init(file: String) { self.file = file }
}

// MARK: - Reading

extension SentencePieceModel {
    /// - Throws: `TokenizerError.malformedFile`; also for other files that end in `.model`.
    init(_ bytes: [UInt8], file: String) throws(TokenizerError) {
        self.init(file: file)
        do {
            var reader = ProtobufReader(bytes)
            while let (field, value) = try reader.next() {
                guard case .bytes(let range) = value else { continue }
                switch field {
                case 1: pieces.append(try Self.piece(bytes, range))
                case 2: try readTrainer(bytes, range)
                case 3: try readNormalizer(bytes, range)
                default: break
                }
            }
        } catch {
            throw .malformedFile(file: file, reason: "not a SentencePiece model")
        }
        guard !pieces.isEmpty else { throw .malformedFile(file: file, reason: "a SentencePiece model without pieces") }
        try validate()
    }

    func validate() throws(TokenizerError) {
        guard pieces.count <= TokenTable.maximumID else { throw .malformedFile(file: file, reason: "\(pieces.count) pieces") }
        for (id, piece) in pieces.enumerated() {
            guard piece.score.isFinite, piece.text.utf8.count <= Self.maximumPieceLength else {
                throw .invalidField(
                    file: file, field: "pieces[\(id)]",
                    expected: "a finite score and at most \(Self.maximumPieceLength) bytes",
                    found: "\(piece.score) and \(piece.text.utf8.count) bytes")
            }
        }
    }

    private static func piece(_ bytes: [UInt8], _ range: Range<Int>) throws(ProtobufReader.Malformed) -> Piece {
        var piece = Piece(text: "")
        var reader = ProtobufReader(bytes, range: range)
        while let (field, value) = try reader.next() {
            switch (field, value) {
            case (1, .bytes(let text)):
                guard let text = String(validating: bytes[text], as: UTF8.self) else { throw ProtobufReader.Malformed() }
                piece.text = text
            case (2, .fixed32(let bits)): piece.score = Float(bitPattern: bits)
            case (3, .varint(let kind)):
                guard kind <= 6, let kind = Kind(rawValue: Int(kind)) else { throw ProtobufReader.Malformed() }
                piece.kind = kind
            default: break
            }
        }
        return piece
    }

    private mutating func readTrainer(_ bytes: [UInt8], _ range: Range<Int>) throws(ProtobufReader.Malformed) {
        var reader = ProtobufReader(bytes, range: range)
        while let (field, value) = try reader.next() {
            guard case .varint(let number) = value else { continue }
            switch field {
            case 3: isBytePair = number == 2
            case 35: fallsBackToBytes = number != 0
            case 40: unknownID = Self.id(number)
            case 41: beginID = Self.id(number)
            case 42: endID = Self.id(number)
            case 43: padID = Self.id(number)
            default: break
            }
        }
    }

    /// A negative id (ten bytes, sign extended) stands for none.
    private static func id(_ number: UInt64) -> Int32? {
        let id = Int64(bitPattern: number)
        return id >= 0 && id <= TokenTable.maximumID ? Int32(id) : nil
    }

    private mutating func readNormalizer(_ bytes: [UInt8], _ range: Range<Int>) throws(ProtobufReader.Malformed) {
        var reader = ProtobufReader(bytes, range: range)
        while let (field, value) = try reader.next() {
            switch (field, value) {
            case (2, .bytes(let map)): charsMap = Array(bytes[map])
            case (3, .varint(let flag)): addsDummyPrefix = flag != 0
            case (4, .varint(let flag)): removesExtraSpaces = flag != 0
            default: break
            }
        }
    }
}
