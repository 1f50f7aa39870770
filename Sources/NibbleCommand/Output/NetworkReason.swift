import Foundation

/// Why a connection or an address failed, without the names of the network library's types.
enum NetworkReason {
    private static let codes = [
        ECONNREFUSED, ECONNRESET, ETIMEDOUT, ENETUNREACH, EHOSTUNREACH, EADDRINUSE, EADDRNOTAVAIL, EACCES, EPERM, EPIPE, EINVAL,
    ]

    /// The system's words where the error holds them.
    static func text(_ error: any Error) -> String {
        let described = "\(error)"
        if let code = codes.first(where: { described.contains(String(cString: strerror($0))) }) { return SystemError.text(code) }
        if let match = described.firstMatch(of: #/errno: (\d+)/#), let code = Int32(match.1) { return SystemError.text(code) }
        if described.contains("UnknownHost") || described.contains("not known") { return "there is no such host" }
        return described
    }
}
