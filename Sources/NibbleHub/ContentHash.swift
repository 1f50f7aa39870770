internal import Crypto

/// The hash that an ETag of the Hub states: SHA-256 for large files, git's blob hash (SHA-1) for small ones. Mirrors may
/// state the SHA-1 of the content itself. Any other ETag says nothing about the content.
package struct ContentHash {
    private var hash: any HashFunction
    /// The SHA-1 of the content alone, where `hash` is git's.
    private var plain: Insecure.SHA1?

    /// `nil` for an ETag that is not a hash.
    package init?(etag: String, byteCount: Int) {
        if HubName.isHexadecimal(etag, count: 64) {
            hash = SHA256()
        } else if HubName.isHexadecimal(etag, count: 40) {
            hash = Insecure.SHA1()
            plain = Insecure.SHA1()
            Array("blob \(byteCount)\0".utf8).withUnsafeBytes { hash.update(bufferPointer: $0) }
        } else {
            return nil
        }
    }

    package mutating func update(_ bytes: UnsafeRawBufferPointer) {
        hash.update(bufferPointer: bytes)
        plain?.update(bufferPointer: bytes)
    }

    /// The hash of the bytes so far, as the Hub writes it.
    package var text: String { Self.hexadecimal(hash) }

    /// Whether the bytes so far are the content that `etag` states.
    package func matches(_ etag: String) -> Bool {
        text == etag || plain.map { Self.hexadecimal($0) == etag } ?? false
    }

    /// The SHA-256 of a text.
    static func digest(of text: String) -> String {
        var hash = SHA256()
        Array(text.utf8).withUnsafeBytes { hash.update(bufferPointer: $0) }
        return hexadecimal(hash)
    }

    private static func hexadecimal(_ hash: some HashFunction) -> String {
        hash.finalize().reduce(into: "") { text, byte in
            let digits = String(byte, radix: 16)
            text += digits.count == 1 ? "0" + digits : digits
        }
    }
}
