/// Why a JSON text, or a field in it, cannot be used.
public enum JSONError: Error, Equatable {
    /// The text is not JSON. `path` leads to the value that holds the place; `line` and `column` (in bytes) count from 1.
    /// `file` is `nil` for text that came from elsewhere.
    case syntax(file: String?, path: String, line: Int, column: Int, expected: String, found: String)
    /// The file cannot be read.
    case unreadable(file: String, reason: String)
    /// A field that must be there is absent.
    case missing(file: String, path: String)
    /// A field holds a value of another kind or range.
    case unexpected(file: String, path: String, expected: String, found: String)
}

extension JSONError: CustomStringConvertible {
    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .syntax(let file, let path, let line, let column, let expected, let found):
            "\(file.map { "\($0), " } ?? "")line \(line), column \(column)\(path.isEmpty ? "" : ", in \(Self.short(path))"): "
                + "expected \(expected), found \(found)"
        case .unreadable(let file, let reason): "\(file): cannot be read: \(reason)"
        case .missing(let file, let path): "\(file): field '\(Self.short(path))' is missing"
        case .unexpected(let file, let path, let expected, let found):
            "\(file): \(path.isEmpty ? "" : "field '\(Self.short(path))': ")expected \(expected), found \(found)"
        }
    }

    /// Hostile files nest their paths deeply.
    private static func short(_ path: String) -> String { path.utf8.count > 200 ? path.prefix(160) + "…" : path }
}

extension JSONError {
    /// The same error, of `file` unless it names one.
    package func naming(_ file: String) -> JSONError {
        guard case .syntax(nil, let path, let line, let column, let expected, let found) = self else { return self }
        return .syntax(file: file, path: path, line: line, column: column, expected: expected, found: found)
    }

    /// The same error of a text that starts on line `number` of its file.
    func onLine(_ number: Int) -> JSONError {
        guard case .syntax(let file, let path, let line, let column, let expected, let found) = self else { return self }
        return .syntax(file: file, path: path, line: number + line - 1, column: column, expected: expected, found: found)
    }

    /// The same error within the member `key`.
    package func within(_ key: String) -> JSONError { within(.key(key)) }

    func within(_ step: JSONPath.Step) -> JSONError {
        guard case .syntax(let file, let path, let line, let column, let expected, let found) = self else { return self }
        return .syntax(
            file: file, path: JSONPath.joined(step, path), line: line, column: column, expected: expected, found: found)
    }
}

/// Paths of fields as errors write them: `model.vocab`, `added_tokens[3].id`.
package enum JSONPath {
    enum Step {
        case key(String)
        case index(Int)
    }

    /// The path of the member `key` of the value at `path`.
    package static func member(_ key: String, of path: String) -> String {
        let name = key.utf8.count > 80 ? key.prefix(60) + "…" : key
        return path.isEmpty ? String(name) : "\(path).\(name)"
    }

    /// The path of the element at `index` of the value at `path`.
    package static func element(_ index: Int, of path: String) -> String { "\(path)[\(index)]" }

    static func joined(_ step: Step, _ rest: String) -> String {
        let head =
            switch step {
            case .key(let key): member(key, of: "")
            case .index(let index): element(index, of: "")
            }
        return rest.isEmpty || rest.hasPrefix("[") ? head + rest : "\(head).\(rest)"
    }
}
