internal import CNibbleHub

/// The hash that an ETag of the Hub states: SHA-256 for large files, git's blob hash (SHA-1) for small ones. Mirrors may
/// state the SHA-1 of the content itself. Any other ETag says nothing about the content.
package struct ContentHash {
    private var hash: NibbleHash
    /// The SHA-1 of the content alone, where `hash` is git's.
    private var plain: NibbleHash?

    /// `nil` for an ETag that is not a hash.
    package init?(etag: String, byteCount: Int) {
        if HubName.isHexadecimal(etag, count: 64) {
            hash = nibble_hash_sha256()
        } else if HubName.isHexadecimal(etag, count: 40) {
            hash = nibble_hash_sha1()
            plain = nibble_hash_sha1()
            Array("blob \(byteCount)\0".utf8).withUnsafeBytes { nibble_hash_update(&hash, $0.baseAddress, $0.count) }
        } else {
            return nil
        }
    }

    package mutating func update(_ bytes: UnsafeRawBufferPointer) {
        nibble_hash_update(&hash, bytes.baseAddress, bytes.count)
        if plain != nil { nibble_hash_update(&plain!, bytes.baseAddress, bytes.count) }
    }

    /// The hash of the bytes so far, as the Hub writes it.
    package var text: String { Self.hexadecimal(hash) }

    /// Whether the bytes so far are the content that `etag` states.
    package func matches(_ etag: String) -> Bool {
        text == etag || plain.map { Self.hexadecimal($0) == etag } ?? false
    }

    /// The SHA-256 of a text.
    static func digest(of text: String) -> String {
        var hash = nibble_hash_sha256()
        Array(text.utf8).withUnsafeBytes { nibble_hash_update(&hash, $0.baseAddress, $0.count) }
        return hexadecimal(hash)
    }

    private static func hexadecimal(_ hash: NibbleHash) -> String {
        let digest = withUnsafePointer(to: hash) { hash in
            [UInt8](unsafeUninitializedCapacity: 32) { $1 = nibble_hash_digest(hash, $0.baseAddress) }
        }
        return digest.reduce(into: "") { text, byte in
            let digits = String(byte, radix: 16)
            text += digits.count == 1 ? "0" + digits : digits
        }
    }
}
