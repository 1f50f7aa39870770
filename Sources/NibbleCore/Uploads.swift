/// Copies of weights from the host to pieces ("slots") of a device's memory that are used again and again.
///
/// The order is fill, acquire, operations that read the slot, release. Filling may run beside operations that use other
/// slots. The caller sees to it that one task at a time has a slot.
package protocol Uploads: AnyObject, Sendable {
    /// Begins copying into a slot, once what was enqueued before its last ``release(_:)`` has run.
    func fill(_ slot: Int, _ copies: [(source: Tensor, destination: Tensor)]) throws
    /// What is enqueued on the backend from now on finds the slot filled.
    func acquire(_ slot: Int) throws
    /// What has been enqueued so far is the last that reads the slot.
    func release(_ slot: Int) throws
}

/// Uploads of a backend whose operations run at once.
final class ImmediateUploads: Uploads {
    private let backend: any Backend

    init(_ backend: any Backend) { self.backend = backend }

    func fill(_ slot: Int, _ copies: [(source: Tensor, destination: Tensor)]) throws {
        for copy in copies { try backend.copy(copy.source, to: copy.destination) }
    }

    func acquire(_ slot: Int) throws {}
    func release(_ slot: Int) throws {}
}
