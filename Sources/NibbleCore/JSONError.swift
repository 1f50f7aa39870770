/// Why a JSON text could not be read.
public enum JSONError: Error, Equatable {
    /// Line and column (in bytes) count from 1. `file` is `nil` for text that came from elsewhere.
    case syntax(file: String?, line: Int, column: Int, expected: String, found: String)
    /// The file cannot be read.
    case unreadable(file: String, reason: String)
}

extension JSONError: CustomStringConvertible {
    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .syntax(let file, let line, let column, let expected, let found):
            "\(file.map { "\($0), " } ?? "")line \(line), column \(column): expected \(expected), found \(found)"
        case .unreadable(let file, let reason):
            "\(file) cannot be read: \(reason)"
        }
    }
}

extension JSONError {
    func naming(_ file: String) -> JSONError {
        guard case .syntax(_, let line, let column, let expected, let found) = self else { return self }
        return .syntax(file: file, line: line, column: column, expected: expected, found: found)
    }
}
