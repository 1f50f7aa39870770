/// Uploads weights from the host to slots: pieces of device memory that are filled again and again.
///
/// The order for a slot is fill, acquire, operations that read it, release. A slot may be filled while operations read other
/// slots. The caller makes sure that one task at a time uses a slot.
package protocol Uploads: AnyObject, Sendable {
    /// Enqueues copies into a slot, after everything that was enqueued before its last ``release(_:)``.
    func fill(_ slot: Int, _ copies: [(source: Tensor, destination: Tensor)]) throws
    /// Makes everything that is enqueued on the backend from now on wait until the slot is filled.
    func acquire(_ slot: Int) throws
    /// Marks everything enqueued so far as the last that reads the slot.
    func release(_ slot: Int) throws
}

/// Uploads of a backend whose operations run synchronously.
final class ImmediateUploads: Uploads {
    private let backend: any Backend

    init(_ backend: any Backend) { self.backend = backend }

    func fill(_ slot: Int, _ copies: [(source: Tensor, destination: Tensor)]) throws {
        for copy in copies { try backend.copy(copy.source, to: copy.destination) }
    }

    func acquire(_ slot: Int) throws {}
    func release(_ slot: Int) throws {}
}
