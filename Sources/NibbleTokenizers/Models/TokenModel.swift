/// The model of a tokenizer: words to tokens.
enum TokenModel: Sendable {
    case bytePair(BytePairModel)
    case unigram(UnigramModel)
    case renumbered(RenumberedModel)

    var table: TokenTable {
        switch self {
        case .bytePair(let model): model.table
        case .unigram(let model): model.table
        case .renumbered(let model): model.table
        }
    }

    var isBytePair: Bool { if case .bytePair = self { true } else { false } }

    /// Whether byte-level words need not be written out in characters.
    var takesBytes: Bool { if case .bytePair(let model) = self { model.takesBytes } else { false } }

    /// - Returns: false if a unigram model had to leave text out.
    func encode(_ word: UnsafeBufferPointer<UInt8>, isByteLevel: Bool, into pieces: inout [ModelPiece]) -> Bool {
        switch self {
        case .bytePair(let model):
            model.encode(word, isByteLevel: isByteLevel, into: &pieces)
            return true
        case .unigram(let model): return model.encode(word, into: &pieces)
        case .renumbered(let model): return model.encode(word, into: &pieces)
        }
    }
}
