import NibbleCore

/// Chooses the GGUF file of a repository or folder that may hold several: one model in many quantizations.
struct GGUFSelection {
    /// A model's files; several where it is split.
    private let models: [(name: String, files: [String])]

    /// - Parameter names: paths of all files.
    init(_ names: [String]) {
        var models: [(name: String, files: [String])] = []
        for name in names.sorted() where name.lowercased().hasSuffix(".gguf") {
            let file = name.split(separator: "/").last.map(String.init) ?? name
            // The vision part of a multimodal model, and what was measured to quantize it.
            if file.lowercased().hasPrefix("mmproj") || file.lowercased().contains("imatrix") { continue }
            let stem = String(name.dropLast(5)).replacing(#/-\d{5}-of-\d{5}$/#, with: "")
            if let known = models.firstIndex(where: { $0.name == stem }) {
                models[known].files.append(name)
            } else {
                models.append((stem, [name]))
            }
        }
        self.models = models
    }

    var isEmpty: Bool { models.isEmpty }

    /// The files of one model, the one to open first.
    /// - Parameters:
    ///   - wanted: a file's name, or a quantization such as `Q4_K_M`; `nil`: the only model, or else the one in `Q4_K_M`.
    ///   - place: the repository or folder, for errors.
    /// - Throws: ``AutoModelError/ambiguousGGUF(_:wanted:files:)``
    func files(_ wanted: String?, in place: String) throws(AutoModelError) -> [String] {
        if let wanted, let exact = models.first(where: { $0.files.contains(wanted) }) { return exact.files }
        let tag = wanted ?? "Q4_K_M"
        let found = models.filter { isTagged($0.name, tag) }
        if found.count == 1 { return found[0].files }
        if wanted == nil, models.count == 1 { return models[0].files }
        throw .ambiguousGGUF(place, wanted: wanted, files: (found.isEmpty ? models : found).map(\.files[0]))
    }

    /// Whether the last part of a name is `tag` (`model-Q4_K_M`, `model.q4_k_m`).
    private func isTagged(_ name: String, _ tag: String) -> Bool {
        let (name, tag) = (Array(name.lowercased().utf8), Array(tag.lowercased().utf8))
        guard !tag.isEmpty, name.count >= tag.count, name.suffix(tag.count).elementsEqual(tag) else { return false }
        return name.dropLast(tag.count).last.map { "-._/".utf8.contains($0) } ?? true
    }
}
