public import Foundation

/// `nibble serve` as a process, on a free port of loopback.
public final class ServeProcess {
    public let port: Int
    private let process = Process()

    struct EndedEarly: Error {
        var errors: String
    }

    /// Returns when the server listens.
    ///
    /// - Parameters:
    ///   - environment: variables that replace those of the same name in this process's environment.
    ///   - folder: the working folder, if not this process's own.
    public init(_ arguments: [String], environment: [String: String] = [:], folder: URL? = nil) throws {
        let errors = Pipe()
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { _, given in given }
        if let folder { process.currentDirectoryURL = folder }
        process.executableURL = CommandLineTool.url
        process.arguments = ["serve"] + arguments + ["--port", "0", "--quiet"]
        process.standardError = errors
        try process.run()
        var text = ""
        while true {
            let data = errors.fileHandleForReading.availableData
            guard !data.isEmpty else { throw EndedEarly(errors: text) }
            text += String(decoding: data, as: UTF8.self)
            if let match = text.firstMatch(of: /listening on http:\/\/127.0.0.1:(\d+)\n/), let port = Int(match.1) {
                self.port = port
                return
            }
        }
    }

    public var address: String { "http://127.0.0.1:\(port)" }

    /// Sends SIGTERM and returns the status with which the server ends.
    public func terminate() -> Int32 {
        process.terminate()
        process.waitUntilExit()
        return process.terminationStatus
    }

    deinit { if process.isRunning { process.terminate() } }
}
