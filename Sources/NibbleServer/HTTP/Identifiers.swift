import Foundation

/// Ids of our own: clients' ids may collide.
enum Identifiers {
    private static let letters = Array("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789".utf8)

    static func random(_ count: Int) -> String {
        String(decoding: (0..<count).map { _ in letters[Int.random(in: 0..<letters.count)] }, as: UTF8.self)
    }
}

enum Clock {
    /// Since 1970.
    static var seconds: Double { Date().timeIntervalSince1970 }

    /// As RFC 3339 writes it, with milliseconds.
    static func text(_ date: Date) -> String { date.formatted(Date.ISO8601FormatStyle(includingFractionalSeconds: true)) }
}
