import NibbleCheckpoint
import NibbleCore
import NibbleModels

/// Weights that stay on the disk: mapped from the checkpoint where it holds them as they are used, else written once to the
/// offload folder and mapped from there.
extension WeightLoader {
    func isOnDisk(_ parameter: String) -> Bool { placement.storage(of: parameter) == .disk }

    /// `tensor` in a mapped file: the checkpoint's own where `tensor` is a view of it.
    func mapped(_ tensor: Tensor, name: String, file: Tensor, key: String, module: String) throws -> Tensor {
        if tensor.storage === file.storage, checkpoint.isView(file, of: key) {
            stream([key], of: checkpoint, module: module)
            return tensor
        }
        let weight = try offloaded(name, key: key, module: module, form: "\(tensor.dtype)") { .dense(tensor) }
        guard case .dense(let stored) = weight else {
            throw LoadError.unreadable(file: self.file(of: key), reason: "the offload folder holds \(key) in another form")
        }
        return stored
    }

    /// A weight that the checkpoint does not hold in this form, under a name of its own.
    func offloaded(
        _ name: String, key: String, module: String, form: String, _ make: () throws -> LinearWeight
    ) throws -> LinearWeight {
        let identity = "\(checkpoint.identity(of: key)) \(form)"
        let (weight, stored, names) = try offload.weight(name, identity: identity, make)
        stream(names, of: stored, module: module)
        return weight
    }
}

extension Checkpoint {
    /// Whether `tensor`, as ``tensor(_:)`` gave it, lies in the mapped file itself.
    func isView(_ tensor: Tensor, of name: String) -> Bool {
        guard let descriptor = descriptor(name) else { return false }
        // A copy begins at its own storage's start; nothing in a file does.
        return descriptor.isContiguous && descriptor.byteOffset > 0 && tensor.byteOffset == descriptor.byteOffset
    }
}

/// The mapped tensors of one block.
struct MappedWeights: WeightStream {
    private var parts: [(checkpoint: any Checkpoint, names: [String])] = []

    mutating func add(_ names: [String], of checkpoint: any Checkpoint) { parts.append((checkpoint, names)) }

    func prefetch() {
        for part in parts { part.names.forEach(part.checkpoint.prefetch) }
    }

    func release() {
        for part in parts { part.names.forEach(part.checkpoint.dropPages) }
    }
}
