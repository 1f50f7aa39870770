package import Foundation
package import NibbleCore

/// One `pytorch_model.bin`: a state dict as `torch.save` writes it, mapped into memory.
///
/// Both forms are read, the zip archive and the run of pickles used before 2020. The pickle is not executed: a fixed
/// table of types and functions is understood, anything else is refused by name. Tensors that share a storage share it
/// here too.
package struct TorchFile: Checkpoint {
    package let names: [String]
    private let file: MappedFile
    private let views: [String: StridedView]
    package let firstFloatingPointDType: DType?

    /// - Throws: ``CheckpointError``.
    /// - Complexity: linear in the pickle; the elements are not touched.
    package init(_ url: URL) throws {
        let file = try MappedFile(url)
        try file.refusePlaceholder()
        let content: TorchContent
        if ZipArchive.isZip(file) {
            content = try TorchContent(zip: file)
        } else if TorchContent.isLegacy(file) {
            content = try TorchContent(legacy: file)
        } else if file.byteCount > 262, file.bytes[257..<262].elementsEqual("ustar".utf8) {
            throw CheckpointError.refused(file: file.path, what: "the tar form used before 2018 is not read")
        } else {
            throw file.malformed(expected: "a file written by torch.save", found: "\(file.byteCount) bytes of another kind")
        }
        let tensors = try content.stateDict(file)
        self.file = file
        views = Dictionary(tensors, uniquingKeysWith: { _, later in later })
        names = views.keys.sorted(by: NaturalOrder.precedes)
        firstFloatingPointDType = tensors.map(\.1.dtype).first { $0.isFloatingPoint && $0.byteCount > 1 }
    }

    package var files: [URL] { [file.url] }

    package var metadata: [String: String] { [:] }

    package func descriptor(_ name: String) -> TensorDescriptor? {
        guard let view = views[name] else { return nil }
        let isContiguous = view.isContiguous
        return TensorDescriptor(
            dtype: view.dtype, shape: view.shape, file: file.url, byteOffset: view.byteOffset,
            byteCount: isContiguous ? view.byteCount : view.spannedByteCount, isContiguous: isContiguous)
    }

    /// - Throws: ``CheckpointError``, also for an expanded view whose elements would take more memory than the file.
    package func tensor(_ name: String) throws -> Tensor {
        guard let view = views[name] else { throw CheckpointError.noSuchTensor(name: name, files: [file.path]) }
        if view.isContiguous { return file.tensor(view.dtype, view.shape, at: view.byteOffset) }
        guard view.byteCount <= file.byteCount else {
            throw CheckpointError.refused(
                file: file.path, what: "tensor \(name) repeats its storage to \(view.byteCount) bytes, more than the file has")
        }
        return view.contiguousCopy(of: file.bytes)
    }

    package func prefetch(_ name: String) {
        if let place = descriptor(name) { file.prefetch(place.byteRange) }
    }

    package func dropPages(_ name: String) {
        if let place = descriptor(name) { file.dropPages(place.byteRange) }
    }
}
