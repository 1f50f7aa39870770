package import Foundation

/// Reading whole files.
package enum FileBytes {
    package struct ReadError: Error, Equatable {
        package let file: String
        package let reason: String
    }

    /// The content of a file; also of a pipe or a device, up to its end.
    package static func read(_ url: URL) throws(ReadError) -> [UInt8] {
        // Straight into the array: Data would cost large vocabularies a copy.
        guard let file = fopen(url.path, "rb") else { throw failure(url) }
        defer { fclose(file) }
        var status = stat()
        guard fstat(fileno(file), &status) == 0 else { throw failure(url) }
        switch status.st_mode & S_IFMT {
        case S_IFREG: break
        case S_IFDIR: throw ReadError(file: url.path, reason: "a folder, not a file")
        default: return try readStream(file, url)
        }
        guard let size = Int(exactly: status.st_size), size >= 0 else { throw failure(url) }
        let bytes = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            count = buffer.baseAddress.map { fread($0, 1, size, file) } ?? 0
        }
        guard bytes.count == size else {
            throw ReadError(file: url.path, reason: "\(bytes.count) of \(size) bytes could be read")
        }
        return bytes
    }

    private static func readStream(_ file: UnsafeMutablePointer<FILE>, _ url: URL) throws(ReadError) -> [UInt8] {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = fread(&chunk, 1, chunk.count, file)
            bytes += chunk[..<count]
            guard count < chunk.count else { continue }
            guard ferror(file) == 0 else { throw failure(url) }
            return bytes
        }
    }

    private static func failure(_ url: URL) -> ReadError {
        ReadError(file: url.path, reason: errno == ENOENT ? "no such file" : String(cString: strerror(errno)))
    }
}
