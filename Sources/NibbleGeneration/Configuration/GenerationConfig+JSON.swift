public import Foundation
package import NibbleCore

extension GenerationConfig {
    /// Options of a caller: a JSON object with GenerationConfig's field names. `null` means unset.
    ///
    /// - Throws: ``GenerationError/unknownFields(_:)``; ``GenerationError/invalidValue`` for values of the wrong form.
    package init(options json: JSONValue, source: String? = nil) throws {
        self.init()
        let object = try Self.object(json, source: source)
        let unknown = object.keys.filter { Self.field(named: $0) == nil && !Self.ignoredNames.contains($0) }
        guard unknown.isEmpty else {
            throw GenerationError.unknownFields(
                unknown.map { .init(name: $0, suggestion: Self.nearestName(to: $0)) })
        }
        try read(object, source: source)
    }

    /// A model's generation_config.json. Unknown names are skipped, as publishers add their own.
    ///
    /// - Throws: ``GenerationError/invalidValue`` for values of the wrong form.
    package init(modelFile json: JSONValue, source: String? = "generation_config.json") throws {
        self.init()
        try read(Self.object(json, source: source), source: source)
        // transformers ignores this old value and chooses the cache itself.
        if cacheImplementation == .hybrid { cacheImplementation = nil }
    }

    /// The generation fields of config.json, where old checkpoints without a generation_config.json keep them.
    package init(modelConfig json: JSONValue, source: String? = "config.json") throws {
        self.init()
        let skipped: Set<String> = ["use_cache", "seed", "output_scores", "output_logits", "return_dict_in_generate"]
        try read(Self.object(json, source: source), source: source, skipping: skipped)
    }

    /// Reads generation_config.json from a model's folder, or the fields of config.json where there is none. Neither: no
    /// field is set.
    public init(modelFolder folder: URL) throws {
        let own = folder.appending(path: "generation_config.json")
        let model = folder.appending(path: "config.json")
        if FileManager.default.fileExists(atPath: own.path) {
            try self.init(modelFile: JSONValue(contentsOf: own), source: own.path)
        } else if FileManager.default.fileExists(atPath: model.path) {
            try self.init(modelConfig: JSONValue(contentsOf: model), source: model.path)
        } else {
            self.init()
        }
    }

    private mutating func read(_ object: JSONObject, source: String?, skipping skipped: Set<String> = []) throws {
        for (name, value) in object.members where !value.isNull && !skipped.contains(name) {
            guard let field = Self.field(named: name) else { continue }
            guard field.read(&self, value) else {
                throw GenerationError.invalidValue(
                    field: name, expected: field.expected, found: Self.excerpt(value), source: source)
            }
        }
    }

    private static func object(_ json: JSONValue, source: String?) throws -> JSONObject {
        guard let object = json.object else {
            throw GenerationError.invalidValue(
                field: "generation options", expected: "an object", found: json.kind, source: source)
        }
        return object
    }

    private static func excerpt(_ value: JSONValue) -> String {
        let text = value.encoded()
        return text.count <= 60 ? text : "\(text.prefix(57))…"
    }

    private static let fieldIndex: [String: Int] = Dictionary(
        uniqueKeysWithValues: fields.enumerated().map { ($1.name, $0) })

    static func field(named name: String) -> ConfigField? { fieldIndex[name].map { fields[$0] } }

    /// The known name with the smallest edit distance to `name`, if that is small for its length.
    static func nearestName(to name: String) -> String? {
        let distances = fields.map { (name: $0.name, distance: editDistance(name, $0.name)) }
        guard let best = distances.min(by: { ($0.distance, $0.name) < ($1.distance, $1.name) }) else { return nil }
        return best.distance <= max(2, name.utf8.count / 3) ? best.name : nil
    }
}

/// The Levenshtein distance over bytes: insertions, deletions and replacements. Texts of more than 64 bytes are far apart.
package func editDistance(_ a: String, _ b: String) -> Int {
    let (a, b) = (Array(a.utf8), Array(b.utf8))
    guard a.count <= 64, b.count <= 64 else { return max(a.count, b.count) }
    var row = Array(0...b.count)
    for (i, x) in a.enumerated() {
        var diagonal = row[0]
        row[0] = i + 1
        for (j, y) in b.enumerated() {
            let replaced = diagonal + (x == y ? 0 : 1)
            diagonal = row[j + 1]
            row[j + 1] = min(replaced, row[j] + 1, diagonal + 1)
        }
    }
    return row[b.count]
}
