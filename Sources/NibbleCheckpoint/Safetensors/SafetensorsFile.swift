package import Foundation
package import NibbleCore

/// One safetensors file, mapped into memory.
///
/// Opening it checks the whole header: dtypes, shapes, and that the byte ranges cover the data exactly, without holes or
/// overlaps. Format: <https://huggingface.co/docs/safetensors>.
package struct SafetensorsFile: Checkpoint {
    package let names: [String]
    package let metadata: [String: String]
    private let file: MappedFile
    private let descriptors: [String: TensorDescriptor]

    /// - Throws: ``CheckpointError``.
    /// - Complexity: linear in the header; the data are not touched.
    package init(_ url: URL) throws {
        let file = try MappedFile(url)
        try file.refusePlaceholder()
        let header = try SafetensorsHeader(file)
        var descriptors = [String: TensorDescriptor](minimumCapacity: header.entries.count)
        for entry in header.entries {
            descriptors[entry.name] = TensorDescriptor(
                dtype: entry.dtype, shape: entry.shape, file: url, byteOffset: header.dataOffset + entry.range.lowerBound,
                byteCount: entry.range.count)
        }
        self.file = file
        self.descriptors = descriptors
        metadata = header.metadata
        names = descriptors.keys.sorted(by: NaturalOrder.precedes)
    }

    package var files: [URL] { [file.url] }

    package func descriptor(_ name: String) -> TensorDescriptor? { descriptors[name] }

    package func tensor(_ name: String) throws -> Tensor {
        guard let place = descriptors[name] else { throw CheckpointError.noSuchTensor(name: name, files: [file.path]) }
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
    /// The bytes of the file that the tensor takes.
    package var byteRange: Range<Int> { byteOffset..<byteOffset + byteCount }
}
