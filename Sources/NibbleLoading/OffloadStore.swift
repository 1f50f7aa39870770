package import Foundation
package import NibbleCheckpoint
package import NibbleCore
import NibbleQuantization

/// Weights on the disk in the form in which they are used: one safetensors file each, written once and mapped.
///
/// In a folder of the user's, files stay: the next load of the same checkpoint in the same form uses them. In a temporary
/// folder, a file is unlinked as soon as it is mapped, so that nothing is left behind.
package final class OffloadStore {
    private let folder: URL
    private let isTemporary: Bool
    private var isCreated = false

    private static let identityKey = "nibble_source"

    /// - Parameter folder: `nil` for a temporary one.
    package init(_ folder: URL?) {
        isTemporary = folder == nil
        self.folder = folder ?? FileManager.default.temporaryDirectory.appending(path: "nibble-offload-\(UUID().uuidString)")
    }

    deinit {
        if isTemporary, isCreated { try? FileManager.default.removeItem(at: folder) }
    }

    /// The mapped weight, its file, and its tensors' names there.
    /// - Parameters:
    ///   - name: the file's name, without an extension.
    ///   - identity: what the weight was made from, and its form. A file with another identity is replaced.
    ///   - make: makes the weight in its canonical layout on the host. Called only if no file holds it.
    /// - Throws: ``LoadError/unwritableOffloadFolder(folder:reason:)``, `CheckpointError`, what `make` throws.
    package func weight(
        _ name: String, identity: String, _ make: () throws -> LinearWeight
    ) throws -> (weight: LinearWeight, file: any Checkpoint, names: [String]) {
        try makeFolder()
        let url = folder.appending(path: "\(name).safetensors")
        if !isTemporary, let file = try? SafetensorsFile(url),
            file.metadata[OffloadStore.identityKey]?.hasSameBytes(as: identity) == true
        {
            return (try read(file, url), file, file.names)
        }
        let tensors = try OffloadStore.tensors(try make())
        try SafetensorsWriter(metadata: ["format": "pt", OffloadStore.identityKey: identity], order: .reference)
            .write(tensors, to: url)
        let file = try SafetensorsFile(url)
        if isTemporary { try? FileManager.default.removeItem(at: url) }
        return (try read(file, url), file, file.names)
    }

    private func makeFolder() throws {
        guard !isCreated else { return }
        do {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        } catch {
            throw LoadError.unwritableOffloadFolder(folder: folder.path, reason: FileError.reason(of: error))
        }
        isCreated = true
    }

    private static let name = "weight"

    private static func tensors(_ weight: LinearWeight) throws -> [(name: String, tensor: Tensor)] {
        switch try weight.canonical() {
        case .dense(let tensor): [(name: name, tensor: tensor)]
        case .fourBit(let weight): try QuantizedTensors.fourBit(weight, name: name)
        case .int8(let weight):
            [(name: name, tensor: weight.values), (name: "\(name).\(QuantizedNames.rowScales)", tensor: weight.scales)]
        case .prepared: []
        }
    }

    private func read(_ file: SafetensorsFile, _ url: URL) throws -> LinearWeight {
        let name = OffloadStore.name
        var source = KeyMatching.WeightSource(key: name)
        for other in file.names where other.hasPrefix(name + ".") {
            source.companions[String(other.dropFirst(name.count + 1))] = other
        }
        guard source.isQuantized else { return .dense(try file.tensor(name)) }
        let shape = try shape(file, source)
        return try StoredWeightReader(checkpoint: file) { $0 }.weight(source, shape: shape)
    }

    private func shape(_ file: SafetensorsFile, _ source: KeyMatching.WeightSource) throws -> Shape {
        for codebook in FourBitFormat.Codebook.allCases {
            guard let key = source.companions[QuantizedNames.quantState(codebook)] else { continue }
            return try QuantState(parsing: try file.tensor(key).hostBytes, name: key).shape
        }
        return file.descriptor(source.key)?.shape ?? []
    }
}

extension Checkpoint {
    /// A text that differs for every tensor of every file, and changes with the file.
    func identity(of name: String) -> String {
        guard let descriptor = descriptor(name) else { return name }
        let attributes = try? FileManager.default.attributesOfItem(atPath: descriptor.file.path)
        let size = (attributes?[.size] as? Int) ?? 0
        let changed = (attributes?[.modificationDate] as? Date)?.timeIntervalSince1970 ?? 0
        return "\(descriptor.file.path) \(size) \(changed) \(name) \(descriptor.byteOffset)"
    }
}
