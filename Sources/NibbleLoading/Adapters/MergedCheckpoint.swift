import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleModels

/// A checkpoint with adapters merged into its tensors. Each is computed when it is read.
struct MergedCheckpoint: Checkpoint {
    private let base: any Checkpoint
    private let changed: [ByteText: ChangedTensor]
    let names: [String]

    /// A tensor that is not the file's.
    struct ChangedTensor: Sendable {
        var dtype: DType
        var shape: Shape
        /// The tensor of the file that it comes from.
        var origin: String
        var make: @Sendable () throws -> Tensor
    }

    /// - Parameter changed: by name; names that `base` does not hold are added.
    init(_ base: any Checkpoint, _ changed: [ByteText: ChangedTensor]) {
        self.base = base
        self.changed = changed
        let known = Set(texts: base.names)
        names = base.names + changed.keys.filter { !known.contains($0) }.sorted().map(\.text)
    }

    var unreadableNames: [String] { base.unreadableNames }
    var files: [URL] { base.files }
    var metadata: [String: String] { base.metadata }

    func descriptor(_ name: String) -> TensorDescriptor? {
        guard let tensor = changed[name], let origin = base.descriptor(tensor.origin) else { return base.descriptor(name) }
        return TensorDescriptor(
            dtype: tensor.dtype, shape: tensor.shape, file: origin.file, byteOffset: origin.byteOffset,
            byteCount: tensor.shape.count * tensor.dtype.byteCount, isContiguous: false)
    }

    func tensor(_ name: String) throws -> Tensor { try changed[name]?.make() ?? base.tensor(name) }

    func prefetch(_ name: String) { base.prefetch(changed[name]?.origin ?? name) }

    func dropPages(_ name: String) { base.dropPages(changed[name]?.origin ?? name) }
}
