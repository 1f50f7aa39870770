package import Foundation
package import NibbleCore

/// One safetensors file, mapped into memory.
///
/// Opening it checks the whole header: dtypes, shapes, and that the byte ranges cover the data exactly, without holes or
/// overlaps. Tensors of a dtype or a rank that is not supported are listed in ``unreadableNames``. Format:
/// <https://huggingface.co/docs/safetensors>.
package struct SafetensorsFile: Checkpoint {
    package let names: [String]
    package let unreadableNames: [String]
    package let metadata: [String: String]
    private let file: MappedFile
    private let descriptors: [ByteText: TensorDescriptor]
    private let refusals: [ByteText: CheckpointError]

    /// - Throws: ``CheckpointError``.
    /// - Complexity: linear in the header; the data are not touched.
    package init(_ url: URL) throws {
        let file = try MappedFile(url)
        try FileKind.require(.safetensors, file)
        let header = try SafetensorsHeader(file)
        var descriptors = [ByteText: TensorDescriptor](minimumCapacity: header.entries.count)
        var refusals: [ByteText: CheckpointError] = [:]
        for entry in header.entries {
            switch entry.content {
            case .elements(let dtype, let shape):
                descriptors[entry.name] = TensorDescriptor(
                    dtype: dtype, shape: shape, file: url, byteOffset: header.dataOffset + entry.range.lowerBound,
                    byteCount: entry.range.count)
            case .unreadable(let error):
                refusals[entry.name] = error
            }
        }
        self.file = file
        self.descriptors = descriptors
        self.refusals = refusals
        metadata = header.metadata
        names = descriptors.keys.map(\.text).sorted(by: NaturalOrder.precedes)
        unreadableNames = refusals.keys.map(\.text).sorted(by: NaturalOrder.precedes)
    }

    package var files: [URL] { [file.url] }

    package func descriptor(_ name: String) -> TensorDescriptor? { descriptors[name] }

    package func tensor(_ name: String) throws -> Tensor {
        guard let place = descriptors[name] else {
            throw refusals[name] ?? CheckpointError.noSuchTensor(name: name, files: [file.path])
        }
        return file.tensor(place.dtype, place.shape, at: place.byteOffset)
    }

    package func prefetch(_ name: String) {
        if let place = descriptors[name] { file.prefetch(place.byteRange) }
    }

    package func dropPages(_ name: String) {
        if let place = descriptors[name] { file.dropPages(place.byteRange) }
    }
}

extension TensorDescriptor {
    /// The bytes of the file that the tensor occupies.
    package var byteRange: Range<Int> { byteOffset..<byteOffset + byteCount }
}
