package import Foundation
package import NibbleCore

/// The dtype, the shape and the place of a tensor in its file.
package struct TensorDescriptor: Sendable, Hashable {
    package let dtype: DType
    package let shape: Shape
    package let file: URL
    /// From the file's start.
    package let byteOffset: Int
    /// Bytes in the file. Differs from `shape.count * dtype.byteCount` only where ``isContiguous`` is false.
    package let byteCount: Int
    /// Whether the bytes at ``byteOffset`` are the tensor's elements in row-major order, so that they may be read in
    /// place. False for a transposed view in a pickle, for a compressed file, and for a block-quantized GGUF tensor, whose
    /// elements only ``Checkpoint/tensor(_:)`` gives.
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
    /// Ordered by ``NaturalOrder``. Names are compared byte by byte: `é` composed and decomposed are two names.
    var names: [String] { get }
    /// Tensors that the files hold, or that an index promises, but that cannot be read: of an unknown dtype, of more
    /// dimensions than `Shape` holds, missing from their shard. A model that does not use them is not affected;
    /// ``tensor(_:)`` throws the reason. They are not among ``names``.
    var unreadableNames: [String] { get }
    /// Sorted. A tensor in a later file hides one of the same name in an earlier file.
    var files: [URL] { get }
    /// Text that the file or the index stores beside the tensors, such as `format` and `total_size`.
    var metadata: [String: String] { get }

    /// `nil` if there is no such tensor.
    func descriptor(_ name: String) -> TensorDescriptor?

    /// The tensor's elements, row-major, in host memory that must not be written.
    ///
    /// The tensor is a view of the mapped file, which stays mapped as long as the tensor (or the checkpoint) is alive.
    /// Elements are copied only where a view is impossible: data that are not aligned for their dtype (rare: a safetensors
    /// header whose length is not a multiple of eight), transposed views, block-quantized formats. The address is always
    /// aligned for the dtype, but not for vector registers.
    ///
    /// If another process truncates the mapped file, this process ends with SIGBUS, as with any mapped file.
    /// - Throws: ``CheckpointError``.
    func tensor(_ name: String) throws -> Tensor

    /// Matrices (or rows) `range` of the outermost axis of a tensor, read alone where the tensor is not a view of the file.
    /// - Throws: ``CheckpointError``.
    func rows(_ name: String, _ range: Range<Int>) throws -> Tensor

    /// The rows [N, K] of a weight, or of matrix `matrix` of a set [E, N, K], if the checkpoint computes them one by one. `nil` for
    /// what lies in the file as it is.
    /// - Throws: ``CheckpointError``.
    func weightRows(_ name: String, matrix: Int?) throws -> (any WeightRows)?

    /// Asks the system to start reading a tensor's pages, without waiting for them.
    func prefetch(_ name: String)

    /// Tells the system that a tensor's pages are not needed for now, so that a checkpoint that is streamed once does not
    /// stay resident. Views stay valid: their pages are read again on the next access.
    func dropPages(_ name: String)

    /// The dtype that stands for the whole checkpoint: that of the first floating-point tensor in the first file. 8-bit
    /// types do not count. `nil` if there is none.
    var firstFloatingPointDType: DType? { get }
}

extension Checkpoint {
    package var unreadableNames: [String] { [] }

    package func rows(_ name: String, _ range: Range<Int>) throws -> Tensor { try tensor(name).rows(range) }

    package func weightRows(_ name: String, matrix: Int?) throws -> (any WeightRows)? { nil }

    /// Names sorted by file and offset: reading in this order passes over each file once.
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
        names.sorted { $0.precedesInBytes($1) }.lazy.compactMap { descriptor($0) }
            .first { $0.file == files.first && $0.dtype.isFloatingPoint && $0.dtype.byteCount > 1 }?.dtype
    }
}
