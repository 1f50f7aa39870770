import ArgumentParser
import Foundation
import Nibble

/// LoRA adapters that a model is used with.
struct AdapterOptionsGroup: ParsableArguments {
    @Option(
        name: .customLong("adapter"),
        help: ArgumentHelp(
            "Folder of a LoRA adapter, as peft writes it, and a factor of its sums (default: 1). Repeatable: adapters are added up.",
            valueName: "folder[=scale]"), completion: .directory)
    var adapters: [String] = []

    func validate() throws { _ = try references() }

    func references() throws -> [AdapterReference] { try adapters.map(AdapterOptionsGroup.reference) }

    /// A scale is what stands behind the last `=`, unless that is part of a folder's name.
    private static func reference(_ text: String) throws -> AdapterReference {
        let parts = text.split(separator: "=", omittingEmptySubsequences: false)
        guard parts.count > 1, !FileManager.default.fileExists(atPath: text) else {
            guard !text.isEmpty else { throw ValidationError("--adapter should name a folder, found nothing") }
            return AdapterReference(folder: URL(filePath: text))
        }
        let folder = parts.dropLast().joined(separator: "=")
        guard let scale = Double(parts[parts.count - 1]), scale.isFinite, abs(scale) < 1e6, !folder.isEmpty else {
            throw ValidationError("--adapter should be FOLDER or FOLDER=SCALE, found \"\(text)\"")
        }
        return AdapterReference(folder: URL(filePath: folder), scale: scale)
    }
}
