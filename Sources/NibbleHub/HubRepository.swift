/// The name of a model on the Hub: `owner/name`, or `name` alone for the oldest.
public struct HubRepository: Sendable, Hashable, CustomStringConvertible {
    /// `owner/name`, or `name`.
    public let name: String

    /// `nil` if no repository can be called so: each part holds letters, digits, `-`, `_` and `.`, neither `--` nor `..`, no `-` or
    /// `.` at either end; 96 characters in all.
    public init?(_ name: String) {
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        guard name.utf8.count <= 96, parts.count <= 2, parts.allSatisfy(HubRepository.isPart), !name.contains("--"),
            !name.contains(".."), !name.hasSuffix(".git")
        else { return nil }
        self.name = name
    }

    private static func isPart(_ part: Substring) -> Bool {
        guard let first = part.first, let last = part.last, !"-.".contains(first), !"-.".contains(last) else { return false }
        return part.utf8.allSatisfy { HubName.isAlphanumeric($0) || "-_.".utf8.contains($0) }
    }

    /// The name.
    public var description: String { name }

    /// The repository's folder in a cache.
    var folderName: String { HubRepository.folderPrefix + name.replacing("/", with: "--") }

    static let folderPrefix = "models--"
}

/// Checks of names from servers and users before they become part of a path or an address.
enum HubName {
    static func isAlphanumeric(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
    }

    static func isHexadecimal(_ text: String, count: Int) -> Bool {
        text.utf8.count == count && text.utf8.allSatisfy("0123456789abcdef".utf8.contains)
    }

    /// A commit's 40 digits.
    static func isCommit(_ text: String) -> Bool { isHexadecimal(text, count: 40) }

    /// A relative path that stays inside its folder, part by part.
    static func isPlainPath(_ path: String) -> Bool {
        // Bytes, because a slash and a combining mark after it are one Character.
        let parts = path.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        return parts.allSatisfy { !$0.isEmpty && !$0.elementsEqual(".".utf8) && !$0.elementsEqual("..".utf8) }
            && !path.utf8.contains(0) && !path.utf8.contains(UInt8(ascii: "\\")) && path.utf8.count < 1024
    }

    /// Everything but unreserved characters, and those in `kept`, as `%XX`.
    static func percentEncoded(_ text: some StringProtocol, keeping kept: String = "") -> String {
        text.utf8.reduce(into: "") { result, byte in
            if isAlphanumeric(byte) || "-_.~".utf8.contains(byte) || kept.utf8.contains(byte) {
                result.unicodeScalars.append(Unicode.Scalar(byte))
            } else {
                let digits = String(byte, radix: 16, uppercase: true)
                result += digits.count == 1 ? "%0" + digits : "%" + digits
            }
        }
    }

    static func percentEncodedPath(_ path: String) -> String { percentEncoded(path, keeping: "/") }
}
