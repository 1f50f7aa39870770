import Foundation
import NibbleCore

/// Reading tokenizer files.
enum FileText {
    static func read(_ url: URL) throws(TokenizerError) -> [UInt8] {
        do { return try FileBytes.read(url) } catch { throw .unreadable(file: error.file, reason: error.reason) }
    }

    static func exists(_ url: URL) -> Bool {
        var isFolder: ObjCBool = false
        return FileManager.default.fileExists(atPath: url.path, isDirectory: &isFolder) && !isFolder.boolValue
    }

    static func requireUTF8(_ bytes: [UInt8], file: String) throws(TokenizerError) {
        guard (try? UTF8Span(validating: bytes.span)) != nil else { throw .malformedFile(file: file, reason: "not UTF-8 text") }
    }
}

extension JSONField {
    func tokenID() throws(JSONError) -> Int32 { Int32(try integer(in: 0...TokenTable.maximumID)) }

    func unsupported(_ found: String) -> TokenizerError { .unsupported(file: file, field: path, found: found) }
}

extension TokenizerError {
    /// Runs `body`. What is wrong with a JSON text in `file` becomes an error of the tokenizer.
    static func reading<T>(_ file: String, _ body: () throws -> T) throws(TokenizerError) -> T {
        do {
            return try body()
        } catch let error as TokenizerError {
            throw error
        } catch let error as JSONError {
            throw .json(error.naming(file))
        } catch {
            throw .malformedFile(file: file, reason: "\(error)")
        }
    }
}
