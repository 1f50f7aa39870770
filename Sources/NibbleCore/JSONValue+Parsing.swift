package import Foundation

package struct JSONOptions: OptionSet, Sendable {
    package let rawValue: Int
    package init(rawValue: Int) { self.rawValue = rawValue }

    /// An object that names a key twice is an error. Without it the later value counts, as in Python.
    package static let rejectDuplicateKeys = JSONOptions(rawValue: 1)
}

extension JSONValue {
    /// Deeper nesting than this is refused.
    package static let maximumDepth = 256

    /// Reads one JSON value that spans all of `bytes` (UTF-8; white space around it is allowed).
    /// - Throws: ``JSONError``.
    /// - Complexity: linear.
    package static func parse(_ bytes: UnsafeRawBufferPointer, options: JSONOptions = []) throws -> JSONValue {
        var reader = JSONReader(bytes, options: options)
        let value = try reader.value()
        try reader.finish()
        return value
    }

    /// As ``parse(_:options:)``, for `[UInt8]`, `Data`, a string's `utf8` …
    package static func parse(_ bytes: some Sequence<UInt8>, options: JSONOptions = []) throws -> JSONValue {
        let contiguous = try bytes.withContiguousStorageIfAvailable {
            try parse(UnsafeRawBufferPointer($0), options: options)
        }
        return try contiguous ?? Array(bytes).withUnsafeBytes { try parse($0, options: options) }
    }

    package static func parse(_ text: String, options: JSONOptions = []) throws -> JSONValue {
        try parse(text.utf8, options: options)
    }

    /// Reads a file.
    /// - Throws: ``JSONError`` naming the file.
    package init(contentsOf file: URL, options: JSONOptions = []) throws {
        let data: Data
        do {
            data = try Data(contentsOf: file)
        } catch {
            throw JSONError.unreadable(file: file.path, reason: FileError.reason(of: error))
        }
        do {
            self = try data.withUnsafeBytes { try JSONValue.parse($0, options: options) }
        } catch let error as JSONError {
            throw error.naming(file.path)
        }
    }
}
