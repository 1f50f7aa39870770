package import Foundation
package import NibbleCore

/// Where a tensor lies in its file.
package struct TensorDescriptor: Sendable, Hashable {
    package let dtype: DType
    package let shape: Shape
    package let file: URL
    /// From the file's start.
    package let byteOffset: Int
    /// Bytes in the file. Differs from `shape.count * dtype.byteCount` only where ``isContiguous`` is false.
    package let byteCount: Int
    /// The bytes at ``byteOffset`` are the tensor's elements in row-major order, so that they may be read in place. False
    /// for a transposed view in a pickle, and for a block-quantized GGUF tensor: only ``Checkpoint/tensor(_:)`` gives the
    /// elements of those.
    package let isContiguous: Bool

    package init(dtype: DType, shape: Shape, file: URL, byteOffset: Int, byteCount: Int, isContiguous: Bool = true) {
        self.dtype = dtype
        self.shape = shape
        self.file = file
        self.byteOffset = byteOffset
        self.byteCount = byteCount
        self.isContiguous = isContiguous
    }
}

/// Named tensors in one or several files. Opening one reads headers only.
///
/// Two names whose descriptors are equal are one tensor saved under both (a tied weight in a pickle).
package protocol Checkpoint: Sendable {
    /// In natural key order: by dot-separated parts, numbers as numbers and before words.
    var names: [String] { get }
    /// Sorted; a tensor in a later file hides one of the same name in an earlier.
    var files: [URL] { get }
    /// Text the file or the index keeps beside the tensors, such as `format` and `total_size`.
    var metadata: [String: String] { get }

    /// `nil` if there is no such tensor.
    func descriptor(_ name: String) -> TensorDescriptor?

    /// The tensor's elements, row-major, in host memory that must not be written.
    ///
    /// The tensor is a view of the mapped file, which stays mapped as long as the tensor (or the checkpoint) is alive. The
    /// elements are copied only where a view cannot serve: data not aligned for its dtype (rare; a safetensors header
    /// whose length is no multiple of eight), transposed views, block-quantized formats. The address is always aligned
    /// for the dtype, but not for vector registers.
    ///
    /// A file that another process truncates while it is mapped ends this one (SIGBUS), as with any mapped file.
    /// - Throws: ``CheckpointError``.
    func tensor(_ name: String) throws -> Tensor

    /// Asks the system to start reading a tensor's pages. Returns at once.
    func prefetch(_ name: String)

    /// Tells the system that a tensor's pages are not needed for now, so that a checkpoint streamed once does not stay
    /// resident. Views stay valid: touched again, the pages are read again.
    func dropPages(_ name: String)

    /// The element type that stands for the whole checkpoint: that of the first floating-point tensor in the first file,
    /// 8-bit types passed over. `nil` if there is none.
    var firstFloatingPointDType: DType? { get }
}

extension Checkpoint {
    /// Names sorted by file and place in it: reading in this order passes over each file once.
    package var namesInFileOrder: [String] {
        let positions = Dictionary(files.enumerated().map { ($1, $0) }, uniquingKeysWith: { first, _ in first })
        let places = names.map { name in
            let descriptor = descriptor(name)
            return (name, descriptor.flatMap { positions[$0.file] } ?? 0, descriptor?.byteOffset ?? 0)
        }
        return places.sorted { ($0.1, $0.2) < ($1.1, $1.2) }.map(\.0)
    }

    /// The names in the first file are taken in alphabetical order, as the safetensors library lists them.
    package var firstFloatingPointDType: DType? {
        names.sorted().lazy.compactMap { descriptor($0) }
            .first { $0.file == files.first && $0.dtype.isFloatingPoint && $0.dtype.byteCount > 1 }?.dtype
    }
}
