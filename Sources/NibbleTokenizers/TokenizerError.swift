/// Why a tokenizer could not be loaded or used.
///
/// Every case names the file and, where there is one, the field in it.
public enum TokenizerError: Error, Equatable, CustomStringConvertible {
    /// The folder holds none of the files that describe a tokenizer.
    case noTokenizer(folder: String, lookedFor: [String])
    /// The file could not be read from disk.
    case unreadable(file: String, reason: String)
    /// The file is not valid JSON; `offset` is in bytes.
    case malformedJSON(file: String, offset: Int, reason: String)
    /// The file is not of the binary or line format it should have.
    case malformedFile(file: String, reason: String)
    /// A field that must be there is absent.
    case missingField(file: String, field: String)
    /// A field holds something else than it may hold.
    case invalidField(file: String, field: String, expected: String, found: String)
    /// A component's `type`, or a named option, is none that is supported.
    case unsupported(file: String, field: String, found: String)
    /// A regular expression uses syntax that is not supported or not valid.
    case unsupportedPattern(file: String, field: String, pattern: String, syntax: String)
    /// Padding was asked for, and the tokenizer has no padding token.
    case noPaddingToken
    /// Padding or truncation to a length was asked for, and no length is known.
    case noMaximumLength
    /// A batch option has a value it cannot have.
    case invalidOption(name: String, reason: String)

    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .noTokenizer(let folder, let lookedFor):
            "no tokenizer in \(folder): looked for \(lookedFor.joined(separator: ", "))"
        case .unreadable(let file, let reason):
            "\(file): cannot be read: \(reason)"
        case .malformedJSON(let file, let offset, let reason):
            "\(file): not valid JSON at byte \(offset): \(reason)"
        case .malformedFile(let file, let reason):
            "\(file): \(reason)"
        case .missingField(let file, let field):
            "\(file): field '\(field)' is missing"
        case .invalidField(let file, let field, let expected, let found):
            "\(file): field '\(field)': expected \(expected), found \(found)"
        case .unsupported(let file, let field, let found):
            "\(file): field '\(field)': '\(found)' is not supported"
        case .unsupportedPattern(let file, let field, let pattern, let syntax):
            "\(file): field '\(field)': pattern '\(pattern)' uses unsupported syntax: \(syntax)"
        case .noPaddingToken:
            "padding was asked for, but the tokenizer has no padding token"
        case .noMaximumLength:
            "a maximum length is needed for this padding or truncation: none was given and the tokenizer states none"
        case .invalidOption(let name, let reason):
            "option '\(name)': \(reason)"
        }
    }
}
