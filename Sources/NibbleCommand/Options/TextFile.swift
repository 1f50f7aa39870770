import Foundation
import NibbleCore

/// Text files that users name.
enum TextFile {
    enum ReadError: Error, CustomStringConvertible {
        case unreadable(file: String, reason: String)
        case notUTF8(file: String)

        var description: String {
            switch self {
            case .unreadable(let file, let reason): "\(file): cannot be read: \(reason)"
            case .notUTF8(let file): "\(file): not UTF-8 text"
            }
        }
    }

    /// - Throws: ``ReadError``
    static func read(_ file: String) throws -> String {
        let descriptor = open(file, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw ReadError.unreadable(file: file, reason: SystemError.text(errno)) }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = Foundation.read(descriptor, &piece, piece.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw ReadError.unreadable(file: file, reason: SystemError.text(errno)) }
            guard count > 0 else { break }
            bytes += piece[..<count]
        }
        guard let text = String(validating: bytes, as: UTF8.self) else { throw ReadError.notUTF8(file: file) }
        return text
    }

    /// The file's lines with their numbers, counted from 1, without empty ones. They end at LF or CRLF.
    /// - Throws: ``ReadError``
    static func lines(_ file: String) throws -> [(number: Int, text: String)] {
        try read(file).textLines.enumerated().filter { !$1.isEmpty }.map { ($0 + 1, String($1)) }
    }
}

/// A line of a file, or of standard input, that does not say what it should.
struct LineError: Error, CustomStringConvertible {
    let file: String
    /// Counted from 1.
    let line: Int
    let expected: String
    let found: String

    var description: String { "\(file), line \(line): expected \(expected), found \(found)" }

    /// The beginning of a line, for ``found``.
    static func excerpt(_ text: String) -> String { text.count > 60 ? "\(text.prefix(60))…" : text }
}
