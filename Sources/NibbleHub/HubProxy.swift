import Foundation
import NibbleCore

/// An HTTP proxy, read from the text of a variable such as `https_proxy` as curl reads it: scheme, user and password are
/// optional.
package struct HubProxy: Sendable, Equatable {
    package let host: String
    package let port: Int
    package let user: String?
    package let password: String?

    /// - Throws: ``HubError/unsupportedProxy(scheme:)``; ``HubError/invalidProxy``, which does not repeat the text, because
    ///   it may hold a password.
    package init(_ text: String) throws(HubError) {
        let text = text.trimmingCharacters(in: .whitespacesAndNewlines)
        let parts = text.splitBytes(at: "://", maximum: 1)
        let scheme = parts.count == 2 ? parts[0].lowercased() : "http"
        guard scheme == "http" else { throw .unsupportedProxy(scheme: scheme.printable(limit: 20)) }
        var authority = parts[parts.count - 1].prefix { !"/?#".contains($0) }
        var credentials: [String] = []
        // A password may hold an @ that is not encoded.
        if let at = authority.lastIndex(of: "@") {
            credentials = authority[..<at].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map {
                String($0).removingPercentEncoding ?? String($0)
            }
            authority = authority[authority.index(after: at)...]
        }
        guard let (host, port) = Self.hostAndPort(authority) else { throw .invalidProxy }
        self.host = host
        // curl's default.
        self.port = port ?? 1080
        user = credentials.first
        password = credentials.count > 1 ? credentials[1] : nil
    }

    /// `HOST`, `HOST:PORT`, `[IPv6]` or `[IPv6]:PORT`.
    static func hostAndPort(_ text: Substring) -> (host: String, port: Int?)? {
        var (host, rest): (Substring, Substring)
        if text.hasPrefix("[") {
            guard let end = text.firstIndex(of: "]") else { return nil }
            (host, rest) = (text[text.index(after: text.startIndex)..<end], text[text.index(after: end)...])
        } else if text.count(where: { $0 == ":" }) > 1 {
            (host, rest) = (text, "")
        } else {
            let colon = text.firstIndex(of: ":") ?? text.endIndex
            (host, rest) = (text[..<colon], text[colon...])
        }
        guard !host.isEmpty, host.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { return nil }
        if rest.isEmpty || rest == ":" { return (String(host), nil) }
        guard rest.hasPrefix(":"), let port = Int(rest.dropFirst()), (1...65535).contains(port) else { return nil }
        return (String(host), port)
    }

    /// For messages: without user and password.
    var address: String { "\(host):\(port)" }

    /// ``address`` as an address writes it: an IPv6 host stands in brackets.
    var authority: String { host.contains(":") ? "[\(host)]:\(port)" : address }
}

/// The hosts that no proxy is used for: the text of `no_proxy`. Entries are `*`, a name that stands for its subdomains too
/// (`example.com`, `.example.com`, `*.example.com`), an address, a range of IPv4 addresses (`10.0.0.0/8`), each perhaps with
/// a port.
package struct ProxyExceptions: Sendable {
    private let entries: [(host: String, port: Int?)]

    package init(_ text: String) {
        entries = text.split { $0 == "," || $0.isWhitespace }.compactMap { entry in
            guard let (host, port) = HubProxy.hostAndPort(entry) else { return nil }
            return (Self.normalized(host), port)
        }
    }

    package func contains(host: String, port: Int) -> Bool {
        let host = Self.normalized(host)
        return entries.contains { entry in
            guard entry.port == nil || entry.port == port else { return false }
            if entry.host == "*" { return true }
            if entry.host.contains("/") { return Self.isInRange(host, entry.host) }
            let name = entry.host.hasPrefix("*.") ? entry.host.dropFirst(2) : entry.host.drop { $0 == "." }
            return !name.isEmpty && (host == name || host.hasSuffix(".\(name)"))
        }
    }

    private static func normalized(_ host: String) -> String {
        let bare = host.hasPrefix("[") && host.hasSuffix("]") ? String(host.dropFirst().dropLast()) : host
        return (bare.hasSuffix(".") ? String(bare.dropLast()) : bare).lowercased()
    }

    private static func isInRange(_ host: String, _ range: String) -> Bool {
        let parts = range.split(separator: "/")
        guard parts.count == 2, let bits = Int(parts[1]), (0...32).contains(bits), let base = address(parts[0]),
            let address = address(host[...])
        else { return false }
        return bits == 0 || (address ^ base) >> UInt32(32 - bits) == 0
    }

    /// An IPv4 address as a number.
    private static func address(_ text: Substring) -> UInt32? {
        let bytes = text.split(separator: ".", omittingEmptySubsequences: false).map { UInt8($0) }
        guard bytes.count == 4 else { return nil }
        return bytes.reduce(UInt32?(0)) { address, byte in
            guard let address, let byte else { return nil }
            return address << 8 | UInt32(byte)
        }
    }
}
