import Foundation
import Synchronization

/// Makes Ctrl-C stop one operation instead of the program.
enum Interrupts {
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
