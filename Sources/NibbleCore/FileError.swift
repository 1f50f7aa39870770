package import Foundation

/// A file operation that failed: the file, what was attempted, and why, without a word of Foundation's.
public struct FileError: Error, Sendable, Equatable {
    package enum Operation: String, Sendable {
        case read, written, created, copied, listed, removed
    }

    /// The file, or the folder.
    public let path: String
    package let operation: Operation
    /// The cause as a short phrase in lower case.
    public let reason: String

    package init(path: String, _ operation: Operation, reason: String) {
        self.path = path
        self.operation = operation
        self.reason = reason
    }

    /// - Parameter error: what Foundation or the system threw.
    package init(_ file: URL, _ operation: Operation, _ error: any Error) {
        self.init(path: file.path, operation, reason: FileError.reason(of: error))
    }
}

extension FileError: CustomStringConvertible {
    /// The error as a sentence for the user.
    public var description: String { "\(path) cannot be \(operation.rawValue): \(reason)" }
}

extension FileError {
    /// The cause of an I/O failure as a short phrase in lower case, such as "no such file or directory".
    package static func reason(of error: any Error) -> String {
        if let error = error as? FileError { return error.reason }
        if let code = systemCode(of: error) { return reason(ofSystemError: code) }
        guard let error = error as? CocoaError else { return "the system gave no reason" }
        return switch error.code {
        case .fileNoSuchFile, .fileReadNoSuchFile: reason(ofSystemError: ENOENT)
        case .fileReadNoPermission, .fileWriteNoPermission: reason(ofSystemError: EACCES)
        case .fileWriteFileExists: reason(ofSystemError: EEXIST)
        case .fileWriteOutOfSpace: reason(ofSystemError: ENOSPC)
        case .fileWriteVolumeReadOnly: reason(ofSystemError: EROFS)
        case .fileReadTooLarge: reason(ofSystemError: EFBIG)
        case .fileReadInvalidFileName, .fileWriteInvalidFileName: "the name is not valid"
        case .fileReadInapplicableStringEncoding, .fileReadUnknownStringEncoding: "it is not UTF-8 text"
        default: "the system gave no reason (code \(error.code.rawValue))"
        }
    }

    /// The cause that `errno` names.
    package static func reason(ofSystemError code: Int32) -> String {
        code == EEXIST ? "a file of that name exists" : String(cString: strerror(code)).lowercased()
    }

    private static func systemCode(of error: any Error) -> Int32? {
        let error = error as NSError
        if error.domain == NSPOSIXErrorDomain { return Int32(exactly: error.code) }
        return (error.userInfo[NSUnderlyingErrorKey] as? any Error).flatMap(systemCode)
    }
}

/// Whole files, with failures in our words.
package enum Files {
    /// - Throws: ``FileError``
    package static func data(of file: URL) throws -> Data {
        do { return try Data(contentsOf: file) } catch { throw FileError(file, .read, error) }
    }

    /// A file of UTF-8 text.
    /// - Throws: ``FileError``
    package static func text(of file: URL) throws -> String {
        guard let text = String(validating: try data(of: file), as: UTF8.self) else {
            throw FileError(path: file.path, .read, reason: "it is not UTF-8 text")
        }
        return text
    }

    /// Replaces the file as a whole: nobody sees half of it.
    /// - Throws: ``FileError``
    package static func write(_ data: Data, to file: URL) throws {
        do { try data.write(to: file, options: .atomic) } catch { throw FileError(file, .written, error) }
    }

    /// Creates a folder and those above it; one that exists is fine.
    /// - Throws: ``FileError``
    package static func makeFolder(_ folder: URL) throws {
        do {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        } catch {
            throw FileError(folder, .created, error)
        }
    }

    /// The names in a folder, in no particular order.
    /// - Throws: ``FileError``
    package static func names(in folder: URL) throws -> [String] {
        do {
            return try FileManager.default.contentsOfDirectory(atPath: folder.path)
        } catch {
            throw FileError(folder, .listed, error)
        }
    }
}
