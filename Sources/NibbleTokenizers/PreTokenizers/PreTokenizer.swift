/// Text cut into words: one buffer and the ranges of the words in it. Text between the ranges is dropped.
struct PreTokenizedText {
    var text: AlignedText
    var words: [Range<Int>]
    /// The words are raw bytes that stand for their byte-level characters.
    var isByteLevel = false

    init(_ text: AlignedText) {
        self.text = text
        words = text.bytes.isEmpty ? [] : [0..<text.bytes.count]
    }
}

/// Cuts normalized text into the words that the model works on.
indirect enum PreTokenizer: Sendable {
    enum Behavior: String, Sendable {
        case removed = "Removed"
        case isolated = "Isolated"
        case mergedWithPrevious = "MergedWithPrevious"
        case mergedWithNext = "MergedWithNext"
        case contiguous = "Contiguous"
    }

    enum PrependScheme: String, Sendable { case always, first, never }

    case sequence([PreTokenizer])
    case split(TextPattern, Behavior, isInverted: Bool)
    case byteLevel(addsPrefixSpace: Bool, splits: Bool)
    case metaspace(replacement: UInt32, PrependScheme, splits: Bool)
    case digits(individual: Bool)
    case whitespace
    case whitespaceSplit
    case punctuation(Behavior)

    /// - Parameter mayKeepBytes: byte-level characters need not be written out if nothing follows.
    func apply(to text: inout PreTokenizedText, mayKeepBytes: Bool) {
        switch self {
        case .sequence(let parts):
            for (index, part) in parts.enumerated() {
                part.apply(to: &text, mayKeepBytes: mayKeepBytes && index == parts.count - 1)
            }
        case .split(let pattern, let behavior, let isInverted):
            text.split(behavior, isInverted: isInverted) { pattern.matches(in: $0) }
        case .byteLevel(let addsPrefixSpace, let splits):
            text.applyByteLevel(addsPrefixSpace: addsPrefixSpace, splits: splits, writesCharacters: !mayKeepBytes)
        case .metaspace(let replacement, let scheme, let splits):
            text.applyMetaspace(replacement, scheme, splits: splits)
        case .digits(let individual):
            text.split(individual ? .isolated : .contiguous, where: UnicodeClasses.isNumeric)
        case .whitespace:
            text.split(.removed, isInverted: true) { PatternMatcher.matches(of: Self.wordPattern, in: $0) }
        case .whitespaceSplit: text.split(.removed, where: UnicodeClasses.isWhitespace)
        case .punctuation(let behavior): text.split(behavior, where: UnicodeClasses.isPunctuation)
        }
    }

    static let byteLevelPattern = knownPattern(
        #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#)
    static let wordPattern = knownPattern(#"[\w\u200C\u200D]+|[^\w\s\u200C\u200D]+"#)

    private static func knownPattern(_ source: String) -> Pattern {
        do { return try Pattern(source) } catch { preconditionFailure("built-in pattern: \(error)") }
    }
}
