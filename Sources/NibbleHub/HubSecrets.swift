import Foundation
import NibbleCore

/// What must not appear in an error or a log: the access token and the proxy's password.
struct HubSecrets: Sendable {
    private let values: [String]

    /// - Throws: ``HubError/invalidToken`` for a token that no header can carry. Its text is not repeated.
    init(token: String?, proxy: HubProxy?) throws(HubError) {
        if let token, !token.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) { throw .invalidToken }
        values = [token, proxy?.password].compactMap { $0 }.filter { !$0.isEmpty }
    }

    /// A text from a server or a library as an error may show it.
    func shown(_ text: some StringProtocol, limit: Int = 200) -> String {
        var text = String(text)
        for value in values { text = text.replacing(value, with: "…") }
        return text.printable(limit: limit)
    }
}

extension String {
    /// An address without user, password and query, which may be secret (`https://user:password@host/path?signature=…`).
    package var publicAddress: String {
        let bare = prefix { $0 != "?" && $0 != "#" }
        let parts = bare.splitBytes(at: "://", maximum: 1)
        guard parts.count == 2 else { return String(bare) }
        let authority = parts[1].prefix { $0 != "/" }
        guard let at = authority.lastIndex(of: "@") else { return String(bare) }
        return "\(parts[0])://\(parts[1][parts[1].index(after: at)...])"
    }
}
