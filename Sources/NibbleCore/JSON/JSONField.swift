package import Foundation

/// A value in a file with the path that leads to it, so that errors can name the field.
package struct JSONField: Sendable {
    package let value: JSONValue
    /// The file's name for messages.
    package let file: String
    /// Empty for the whole file.
    package let path: String

    package init(_ value: JSONValue, file: String, path: String = "") {
        self.value = value
        self.file = file
        self.path = path
    }

    /// The content of a file, read as Python's `json` does.
    package init(contentsOf url: URL) throws {
        self.init(try JSONValue(contentsOf: url), file: url.path)
    }

    /// One line of a file of JSON lines.
    /// - Parameter number: counted from 1; errors name it.
    package init(line: some StringProtocol, number: Int, of file: String) throws {
        do {
            self.init(try JSONValue.parse(line.utf8), file: "\(file), line \(number)")
        } catch let error as JSONError {
            throw error.naming(file).onLine(number)
        }
    }

    // MARK: Members and elements

    /// The member `key`; `nil` where it is absent or null, or this is not an object.
    package func child(_ key: String) -> JSONField? {
        guard let member = value[key], !member.isNull else { return nil }
        return JSONField(member, file: file, path: JSONPath.member(key, of: path))
    }

    package func required(_ key: String) throws(JSONError) -> JSONField {
        guard let child = child(key) else { throw .missing(file: file, path: JSONPath.member(key, of: path)) }
        return child
    }

    package func elements() throws(JSONError) -> [JSONField] {
        guard let elements = value.array else { throw unexpected("an array") }
        return elements.enumerated().map { JSONField($1, file: file, path: JSONPath.element($0, of: path)) }
    }

    package func members() throws(JSONError) -> [(key: String, field: JSONField)] {
        guard let members = value.object else { throw unexpected("an object") }
        return members.map { ($0.key, JSONField($0.value, file: file, path: JSONPath.member($0.key, of: path))) }
    }

    // MARK: Values

    package func string() throws(JSONError) -> String {
        guard let text = value.string else { throw unexpected("a string") }
        return text
    }

    package func bool() throws(JSONError) -> Bool {
        guard let flag = value.bool else { throw unexpected("true or false") }
        return flag
    }

    package func integer(in range: ClosedRange<Int>) throws(JSONError) -> Int {
        guard let number = value.int, range.contains(number) else {
            throw unexpected("a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    package func double() throws(JSONError) -> Double {
        guard let number = value.double else { throw unexpected("a number") }
        return number
    }

    /// The text of the member `key`, which must be there.
    package func text(_ key: String) throws(JSONError) -> String { try required(key).string() }

    /// The flag `key`, or `fallback` where it is absent or null.
    package func flag(_ key: String, default fallback: Bool) throws(JSONError) -> Bool {
        try child(key)?.bool() ?? fallback
    }

    /// The error that this field holds something else than `expected`.
    package func unexpected(_ expected: String) -> JSONError {
        .unexpected(file: file, path: path, expected: expected, found: value.summary)
    }
}
