internal import Crypto

/// The hash that an ETag of the Hub is: SHA-256 for large files, git's blob hash (SHA-1) for small ones.
package struct ContentHash {
    private var hash: any HashFunction

    /// `nil` for an ETag that is neither.
    package init?(etag: String, byteCount: Int) {
        if HubName.isHexadecimal(etag, count: 64) {
            hash = SHA256()
        } else if HubName.isHexadecimal(etag, count: 40) {
            hash = Insecure.SHA1()
            Array("blob \(byteCount)\0".utf8).withUnsafeBytes { hash.update(bufferPointer: $0) }
        } else {
            return nil
        }
    }

    package mutating func update(_ bytes: UnsafeRawBufferPointer) { hash.update(bufferPointer: bytes) }

    /// The hash of what came so far, as an ETag gives it.
    package var text: String { hexadecimal(hash) }

    private func hexadecimal(_ hash: some HashFunction) -> String {
        hash.finalize().reduce(into: "") { text, byte in
            let digits = String(byte, radix: 16)
            text += digits.count == 1 ? "0" + digits : digits
        }
    }
}
