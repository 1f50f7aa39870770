import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleQuantization

/// Weights in the form they are used in, one safetensors file each, written once and mapped.
///
/// In a folder of the user's, files stay and are found again by the next load of the same checkpoint in the same form. In a
/// temporary folder a file loses its name as soon as it is mapped, so that nothing is left behind.
final class OffloadStore {
    private let folder: URL
    private let isTemporary: Bool
    private var isMade = false

    private static let identityKey = "nibble_source"

    init(_ folder: URL?) {
        isTemporary = folder == nil
        self.folder = folder ?? FileManager.default.temporaryDirectory.appending(path: "nibble-offload-\(UUID().uuidString)")
    }

    deinit {
        if isTemporary, isMade { try? FileManager.default.removeItem(at: folder) }
    }

    /// The weight, mapped; the file it lies in, and its tensors' names there.
    /// - Parameters:
    ///   - identity: tells the source and the form apart from all others.
    ///   - make: gives the weight in its canonical layout on the host; called only if no file holds it.
    func weight(
        _ name: String, identity: String, _ make: () throws -> LinearWeight
    ) throws -> (weight: LinearWeight, file: any Checkpoint, names: [String]) {
        try makeFolder()
        let url = folder.appending(path: "\(name).safetensors")
        if !isTemporary, let file = try? SafetensorsFile(url), file.metadata[OffloadStore.identityKey] == identity {
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
        guard !isMade else { return }
        do {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        } catch {
            throw LoadError.unwritableOffloadFolder(folder: folder.path, reason: FileError.reason(of: error))
        }
        isMade = true
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
    /// Tells a tensor of one file, as it was when it was opened, from others.
    func identity(of name: String) -> String {
        guard let descriptor = descriptor(name) else { return name }
        let attributes = try? FileManager.default.attributesOfItem(atPath: descriptor.file.path)
        let size = (attributes?[.size] as? Int) ?? 0
        let changed = (attributes?[.modificationDate] as? Date)?.timeIntervalSince1970 ?? 0
        return "\(descriptor.file.path) \(size) \(changed) \(name) \(descriptor.byteOffset)"
    }
}
