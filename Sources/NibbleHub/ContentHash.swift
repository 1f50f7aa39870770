/// The hash that an ETag of the Hub is: SHA-256 for large files, git's blob hash for small ones.
@_spi(Testing) public struct ContentHash {
    private var hash: BlockHash

    /// `nil` for an ETag that is neither.
    public init?(etag: String, byteCount: Int) {
        if HubName.isHexadecimal(etag, count: 64) {
            hash = BlockHash(.sha256)
        } else if HubName.isHexadecimal(etag, count: 40) {
            hash = BlockHash(.sha1)
            Array("blob \(byteCount)\0".utf8).withUnsafeBytes { hash.update($0) }
        } else {
            return nil
        }
    }

    public mutating func update(_ bytes: UnsafeRawBufferPointer) { hash.update(bytes) }

    /// The hash of what came so far, as an ETag gives it.
    public var text: String { hash.text() }
}
