import Foundation

/// Reading tokenizer files.
enum FileText {
    static func read(_ url: URL) throws(TokenizerError) -> [UInt8] {
        do {
            return Array(try Data(contentsOf: url))
        } catch {
            throw .unreadable(file: url.path, reason: error.localizedDescription)
        }
    }

    static func exists(_ url: URL) -> Bool {
        var isFolder: ObjCBool = false
        return FileManager.default.fileExists(atPath: url.path, isDirectory: &isFolder) && !isFolder.boolValue
    }

    static func requireUTF8(_ bytes: [UInt8], file: String) throws(TokenizerError) {
        guard (try? UTF8Span(validating: bytes.span)) != nil else { throw .malformedFile(file: file, reason: "not UTF-8 text") }
    }

    static func json(_ url: URL) throws(TokenizerError) -> JSONField {
        let bytes = try read(url)
        try requireUTF8(bytes, file: url.path)
        return JSONField(value: try JSONTree(parsing: bytes, file: url.path), file: url.path, path: "")
    }
}
