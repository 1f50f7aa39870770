import Foundation
import Nibble

/// An error as a user of the command line reads it.
struct CommandFailure: Error, CustomStringConvertible {
    let description: String

    /// Puts the file or option that `body` reads before the errors that it throws.
    static func naming<Result>(_ source: String, _ body: () throws -> Result) throws -> Result {
        do { return try body() } catch { throw CommandFailure(description: "\(source): \(error)") }
    }

    /// `error` in the command line's words. Errors that need no change are returned as they are.
    static func shown(_ error: any Error) -> any Error {
        switch error {
        // A field of a file keeps the name that stands in the file.
        case GenerationError.invalidValue(_, _, _, .some), GenerationError.unknownFields: return error
        case let error as GenerationError: return CommandFailure(description: OptionNames.onCommandLine("\(error)"))
        case AutoModelError.isEncoderDecoder(let name):
            return CommandFailure(
                description: "\(name) is an encoder-decoder; this command needs a model that continues text (a decoder)")
        case is CancellationError: return CommandFailure(description: "interrupted")
        case let error as CocoaError:
            let file = error.filePath ?? error.url?.path
            let reason = error.underlying.map { SystemError.text(Int32($0)) } ?? error.localizedDescription
            return CommandFailure(description: file.map { "\($0): \(reason)" } ?? reason)
        default: return error
        }
    }
}

extension CocoaError {
    /// The `errno` behind the error.
    fileprivate var underlying: Int? {
        guard let error = userInfo[NSUnderlyingErrorKey] as? NSError, error.domain == NSPOSIXErrorDomain else { return nil }
        return error.code
    }
}
