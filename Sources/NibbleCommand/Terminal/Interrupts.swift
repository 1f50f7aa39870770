import Foundation
import Synchronization

/// Makes Ctrl-C stop one operation instead of the program.
enum Interrupts {
    /// Runs `body` when Ctrl-C or SIGTERM ends the program, until the result is cancelled.
    static func beforeEnding(_ body: @escaping @Sendable () -> Void) -> Ending { Ending(body) }

    /// Sources of signals, which call on a thread where more is allowed than in a signal handler.
    struct Ending {
        private let sources: [any DispatchSourceSignal]

        fileprivate init(_ body: @escaping @Sendable () -> Void) {
            sources = [SIGINT, SIGTERM].map { number in
                signal(number, SIG_IGN)
                let source = DispatchSource.makeSignalSource(signal: number, queue: .global(qos: .userInteractive))
                source.setEventHandler {
                    body()
                    signal(number, SIG_DFL)
                    kill(getpid(), number)
                }
                source.resume()
                return source
            }
        }

        func cancel() {
            for source in sources { source.cancel() }
            for number in [SIGINT, SIGTERM] { signal(number, SIG_DFL) }
        }
    }

    private static let count = Atomic<Int>(0)

    /// Whether Ctrl-C was pressed since ``catching(_:)`` began.
    static var isRequested: Bool { count.load(ordering: .relaxed) > 0 }

    /// Runs `body`. Meanwhile Ctrl-C only sets ``isRequested``; pressed twice more, it ends the program as usual.
    static func catching<Result>(isolation: isolated (any Actor)? = #isolation, _ body: () async throws -> Result) async rethrows
        -> Result
    {
        count.store(0, ordering: .relaxed)
        signal(SIGINT) { _ in
            if Interrupts.count.add(1, ordering: .relaxed).newValue == 3 {
                signal(SIGINT, SIG_DFL)
                raise(SIGINT)
            }
        }
        defer { signal(SIGINT, SIG_DFL) }
        return try await body()
    }
}
