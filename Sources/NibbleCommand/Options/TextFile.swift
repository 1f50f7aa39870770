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

    static func read(_ file: String) throws -> String {
        let data: Data
        do {
            data = try Data(contentsOf: URL(filePath: file))
        } catch {
            throw ReadError.unreadable(file: file, reason: FileError.reason(of: error))
        }
        guard let text = String(validating: data, as: UTF8.self) else { throw ReadError.notUTF8(file: file) }
        return text
    }
}
