public import NibbleCore

/// Why a tokenizer could not be loaded or used.
///
/// Every case names the file and, where there is one, the field in it.
public enum TokenizerError: Error, Equatable, CustomStringConvertible {
    /// The folder holds none of the files that describe a tokenizer.
    case noTokenizer(folder: String, lookedFor: [String])
    /// The file could not be read from disk.
    case unreadable(file: String, reason: String)
    /// The file is not valid JSON, or a field is absent or holds something else than it may hold.
    case json(JSONError)
    /// The file is not of the binary or line format it should have.
    case malformedFile(file: String, reason: String)
    /// A field of a file that is not JSON, or an entry of a vocabulary, holds something else than it may hold.
    case invalidField(file: String, field: String, expected: String, found: String)
    /// A component's `type`, or a named option, is none that is supported.
    case unsupported(file: String, field: String, found: String)
    /// A regular expression uses syntax that is not supported or not valid.
    case unsupportedPattern(file: String, field: String, pattern: String, syntax: String)
    /// The vocabulary lacks a part of `text`, and there is no token for what is unknown.
    case noUnknownToken(text: String)
    /// Padding was asked for, and the tokenizer has no padding token.
    case noPaddingToken
    /// Padding or truncation to a length was asked for, and no length is known.
    case noMaximumLength
    /// The model does not know the language; `near` are codes that may have been meant.
    case unknownLanguage(String, near: [String])
    /// A language was chosen, and the tokenizer has none to choose from.
    case noLanguages
    /// A batch option has a value it cannot have.
    case invalidOption(name: String, reason: String)

    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .noTokenizer(let folder, let lookedFor):
            "no tokenizer in \(folder): looked for \(lookedFor.joined(separator: ", "))"
        case .unreadable(let file, let reason):
            "\(file): cannot be read: \(reason)"
        case .json(let error): "\(error)"
        case .malformedFile(let file, let reason):
            "\(file): \(reason)"
        case .invalidField(let file, let field, let expected, let found):
            "\(file): field '\(field)': expected \(expected), found \(found)"
        case .unsupported(let file, let field, let found):
            "\(file): field '\(field)': '\(found)' is not supported"
        case .unsupportedPattern(let file, let field, let pattern, let syntax):
            "\(file): field '\(field)': pattern '\(pattern)' uses unsupported syntax: \(syntax)"
        case .noUnknownToken(let text):
            "'\(text)' holds characters that the vocabulary lacks, and the tokenizer has no unknown token"
        case .noPaddingToken:
            "padding was asked for, but the tokenizer has no padding token"
        case .noMaximumLength:
            "a maximum length is needed for this padding or truncation: none was given and the tokenizer states none"
        case .unknownLanguage(let code, let near):
            "the model does not know the language '\(code)'"
                + (near.isEmpty
                    ? "; Tokenizer.languages lists those it knows" : "; did you mean \(near.joined(separator: ", "))?")
        case .noLanguages:
            "a language was chosen (--src-lang, --tgt-lang), but the model is not one that translates between several languages"
        case .invalidOption(let name, let reason):
            "option '\(name)': \(reason)"
        }
    }
}
