import Foundation

/// Runs a program on a terminal of its own.
enum PseudoTerminal {
    struct SetupError: Error {}

    /// What to wait for in the output since the last keys.
    enum Cue {
        case text(String)
        case characters(Int)

        func isGiven(_ output: String) -> Bool {
            switch self {
            case .text(let text): output.contains(text)
            case .characters(let count): output.count >= count
            }
        }
    }

    static func run(
        _ program: URL, _ arguments: [String], typing steps: [(after: Cue, keys: String)]
    ) throws -> (status: Int32, output: String) {
        var (controller, terminal): (Int32, Int32) = (-1, -1)
        guard openpty(&controller, &terminal, nil, nil, nil) == 0 else { throw SetupError() }
        // A session of its own makes the terminal the one that Ctrl-C comes from.
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/setsid")
        process.arguments = ["--ctty", "--wait", program.path] + arguments
        let handle = FileHandle(fileDescriptor: terminal, closeOnDealloc: true)
        process.standardInput = handle
        process.standardOutput = handle
        process.standardError = handle
        try process.run()
        try handle.close()

        var output = ""
        var recent = ""
        var pending = steps[...]
        while let piece = read(controller) {
            output += piece
            recent += piece
            guard let step = pending.first, step.after.isGiven(recent) else { continue }
            write(controller, step.keys)
            pending = pending.dropFirst()
            recent = ""
        }
        process.waitUntilExit()
        close(controller)
        return (process.terminationStatus, output)
    }

    /// What the program wrote; `nil` once it has closed the terminal.
    private static func read(_ descriptor: Int32) -> String? {
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = Foundation.read(descriptor, &bytes, bytes.count)
        return count > 0 ? String(decoding: bytes[..<count], as: UTF8.self) : nil
    }

    private static func write(_ descriptor: Int32, _ text: String) {
        _ = Array(text.utf8).withUnsafeBytes { Foundation.write(descriptor, $0.baseAddress, $0.count) }
    }
}
