import Foundation

/// Reading tokenizer files.
enum FileText {
    static func read(_ url: URL) throws(TokenizerError) -> [UInt8] {
        // Straight into the array: vocabularies are large enough for a copy to be felt.
        guard let file = fopen(url.path, "rb") else {
            throw .unreadable(file: url.path, reason: String(cString: strerror(errno)))
        }
        defer { fclose(file) }
        var status = stat()
        guard fstat(fileno(file), &status) == 0, let size = Int(exactly: status.st_size), size >= 0 else {
            throw .unreadable(file: url.path, reason: String(cString: strerror(errno)))
        }
        let bytes = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            count = buffer.baseAddress.map { fread($0, 1, size, file) } ?? 0
        }
        guard bytes.count == size else {
            throw .unreadable(file: url.path, reason: "\(bytes.count) of \(size) bytes could be read")
        }
        return bytes
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
