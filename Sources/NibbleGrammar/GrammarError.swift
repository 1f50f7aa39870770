/// Why a schema, pattern or grammar is refused, or can no longer be followed.
public enum GrammarError: Error, Sendable, Equatable {
    /// A keyword of JSON Schema that is not enforced exactly.
    case unsupportedKeyword(String, path: String, reason: String)
    /// A keyword whose value is none that JSON Schema allows.
    case invalidKeyword(String, path: String, expected: String)
    /// No text satisfies it.
    case unsatisfiable(path: String)
    /// A reference to something that the schema does not hold.
    case unresolvedReference(String, path: String)
    /// A regular expression that is none, or that cannot be enforced.
    case pattern(String, problem: String)
    /// A mistake in a grammar in GBNF.
    case notation(line: Int, problem: String)
    /// More states, rules or steps than a grammar may need.
    case tooComplex(what: String, limit: Int)
    /// A token that the mask did not allow.
    case tokenNotAllowed(Int32)
}

extension GrammarError: CustomStringConvertible {
    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .unsupportedKeyword(let keyword, let path, let reason):
            "the schema's \"\(keyword)\" at \(path) cannot be enforced: \(reason)"
        case .invalidKeyword(let keyword, let path, let expected): "the schema's \"\(keyword)\" at \(path) must be \(expected)"
        case .unsatisfiable(let path): "no value satisfies the schema at \(path)"
        case .unresolvedReference(let reference, let path):
            "\"$ref\" at \(path) refers to \(reference), which is not in the schema"
        case .pattern(let pattern, let problem): "the pattern \(pattern.debugDescription) cannot be enforced: \(problem)"
        case .notation(let line, let problem): "the grammar's line \(line): \(problem)"
        case .tooComplex(let what, let limit): "the grammar needs more than \(limit) \(what)"
        case .tokenNotAllowed(let token): "token \(token) does not continue a text of the grammar"
        }
    }
}
