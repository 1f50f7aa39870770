package import Foundation
package import NibbleCore

/// One `pytorch_model.bin`: a state dict as `torch.save` writes it, mapped into memory.
///
/// Both forms are read: the zip archive, and the sequence of pickles that was written before 2020. The pickle is not
/// executed: a fixed table of types and functions is understood, anything else is refused by name. Tensors that share a
/// storage share it here too. An archive whose entries are deflated is unpacked into memory.
package struct TorchFile: Checkpoint {
    package let names: [String]
    package let unreadableNames: [String]
    package let firstFloatingPointDType: DType?
    /// The mapped file, or its unpacked content.
    private let content: MappedFile
    private let views: [ByteText: StridedView]
    private let refusals: [ByteText: CheckpointError]

    /// - Throws: ``CheckpointError``.
    /// - Complexity: linear in the pickle; elements are not touched, unless they are compressed.
    package init(_ url: URL) throws {
        let content = try Self.content(MappedFile(url))
        let stateDict = try content.stateDict()
        self.content = content.file
        views = Dictionary(
            stateDict.tensors.map { (ByteText($0.name), $0.view) }, uniquingKeysWith: { _, later in later })
        refusals = Dictionary(
            stateDict.unreadable.map { (ByteText($0.name), $0.error) }, uniquingKeysWith: { _, later in later })
        names = views.keys.map(\.text).sorted(by: NaturalOrder.precedes)
        unreadableNames = refusals.keys.filter { [views] in views[$0] == nil }.map(\.text).sorted(by: NaturalOrder.precedes)
        firstFloatingPointDType =
            stateDict.tensors.map(\.view.dtype).first { $0.isFloatingPoint && $0.byteCount > 1 }
    }

    private static func content(_ file: MappedFile) throws -> TorchContent {
        if ZipArchive.isZip(file) { return try TorchContent(zip: file) }
        if let start = TorchContent.legacyStart(file) { return try TorchContent(legacy: file, start: start) }
        try FileKind.require(nil, file)
        if file.byteCount > 262, file.bytes[257..<262].elementsEqual("ustar".utf8) {
            throw CheckpointError.refused(file: file.path, what: "the tar form that was written before 2018 is not read")
        }
        throw file.malformed(expected: "a file written by torch.save", found: "\(file.byteCount) bytes of another kind")
    }

    package var files: [URL] { [content.url] }

    package var metadata: [String: String] { [:] }

    package func descriptor(_ name: String) -> TensorDescriptor? {
        guard let view = views[name] else { return nil }
        let isContiguous = view.isContiguous
        return TensorDescriptor(
            dtype: view.dtype, shape: view.shape, file: content.url, byteOffset: view.byteOffset,
            byteCount: isContiguous ? view.byteCount : view.spannedByteCount,
            isContiguous: isContiguous && content.isFileBacked)
    }

    /// - Throws: ``CheckpointError``, also for an expanded view whose elements would take more memory than the file.
    package func tensor(_ name: String) throws -> Tensor {
        guard let view = views[name] else {
            throw refusals[name] ?? CheckpointError.noSuchTensor(name: name, files: [content.path])
        }
        if view.isContiguous { return content.tensor(view.dtype, view.shape, at: view.byteOffset) }
        guard view.byteCount <= content.byteCount else {
            throw CheckpointError.refused(
                file: content.path,
                what: "tensor \(name.printable()) repeats its storage to \(view.byteCount) bytes, more than the file has")
        }
        return view.contiguousCopy(of: content.bytes)
    }

    package func prefetch(_ name: String) {
        if let place = descriptor(name) { content.prefetch(place.byteRange) }
    }

    package func dropPages(_ name: String) {
        if let place = descriptor(name) { content.dropPages(place.byteRange) }
    }
}
