import Foundation

/// Ids of our own: clients' ids may collide.
enum Identifiers {
    private static let letters = Array("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789".utf8)

    /// Ten letters are made of each number, because each number asks the kernel.
    static func random(_ count: Int) -> String {
        var bits: UInt64 = 0
        let bytes = (0..<count).map { index in
            if index % 10 == 0 { bits = .random(in: 0...UInt64.max) }
            defer { bits /= UInt64(letters.count) }
            return letters[Int(bits % UInt64(letters.count))]
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

enum Clock {
    /// Since 1970.
    static var seconds: Double { Date().timeIntervalSince1970 }

    /// As RFC 3339 writes it, with milliseconds.
    static func text(_ date: Date) -> String { date.formatted(Date.ISO8601FormatStyle(includingFractionalSeconds: true)) }
}
