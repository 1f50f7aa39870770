internal import NibbleCore
internal import NibbleModels
import Synchronization

/// Keeps the session of a conversation from one generation to the next, which then feeds only the tokens that it does not hold.
///
/// A generation takes the session out, so that it has one user at a time; one that finds nothing makes its own.
package final class KeptSession: Sendable {
    private struct Content: @unchecked Sendable {
        var session: any DecodingSession
        var cacheQuantization: KeyValueQuantization?
    }

    private let content = Mutex<Content?>(nil)

    package init() {}

    /// The session, if its rows can hold `capacity` tokens in this form. Otherwise it is freed.
    func take(capacity: Int, _ cacheQuantization: KeyValueQuantization?) -> (any DecodingSession)? {
        let found = content.withLock { content in
            defer { content = nil }
            return content
        }
        guard let found, found.session.capacity >= capacity, found.cacheQuantization == cacheQuantization else { return nil }
        return found.session
    }

    func put(_ session: any DecodingSession, _ cacheQuantization: KeyValueQuantization?) {
        session.interruption = nil
        let value = Content(session: session, cacheQuantization: cacheQuantization)
        content.withLock { $0 = value }
    }
}
