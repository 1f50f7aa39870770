import Foundation
import NibbleCore

/// The schemas within a schema, each known by its place, and what references between them mean.
struct SchemaDocument {
    typealias Place = Int32

    struct Schema {
        var value: JSONValue
        /// A JSON pointer with `#` before it, for messages.
        var path: String
        /// What relative references start from.
        var base: String
        /// Where it stands among the others, for the order of members: its own place, or that of the schema it is a part of.
        var rank: Place
    }

    private(set) var schemas: [Schema] = []
    private var places: [ByteText: Place] = [:]
    /// Where resources with an `$id` begin, and what anchors name.
    private var targets: [ByteText: Place] = [:]
    private static let maximumSchemas = 200_000
    /// Up to draft 7, the keywords beside a reference mean nothing.
    private let referencesStandAlone: Bool

    static let root: Place = 0

    init(_ value: JSONValue) throws(GrammarError) {
        let draft = value["$schema"]?.string ?? ""
        referencesStandAlone = ["draft-03", "draft-04", "draft-06", "draft-07"].contains { draft.contains("/\($0)/") }
        let root = try place(value, "#", base: "")
        targets[ByteText(schemas[Int(root)].base)] = root
        targets[ByteText("")] = root
        try collect(value, "#", base: "")
    }

    subscript(place: Place) -> Schema { schemas[Int(place)] }

    /// Makes a schema known by its path.
    mutating func place(
        _ value: JSONValue, _ path: String, base: String, rank: Place? = nil
    ) throws(GrammarError) -> Place {
        if let known = places[ByteText(path)] { return known }
        guard schemas.count < Self.maximumSchemas else { throw .tooComplex(what: "schemas", limit: Self.maximumSchemas) }
        let place = Place(schemas.count)
        let value = referencesStandAlone ? Self.aloneIfReference(value) : value
        schemas.append(
            Schema(value: value, path: path, base: Self.base(of: value, within: base), rank: rank ?? place))
        places[ByteText(path)] = place
        return place
    }

    /// A reference without what stands beside it, except schemas that others may refer to.
    private static func aloneIfReference(_ value: JSONValue) -> JSONValue {
        guard let object = value.object, object["$ref"]?.string != nil else { return value }
        return .object(
            JSONObject(
                object.filter { ["$ref", "$schema", "$id", "definitions", "$defs"].contains($0.key) }.map { ($0.key, $0.value) }))
    }

    /// A schema that lies within another one.
    mutating func child(_ value: JSONValue, _ keys: [String], of parent: Place) throws(GrammarError) -> Place {
        let parent = schemas[Int(parent)]
        return try place(value, parent.path + keys.map { "/" + Self.escaped($0) }.joined(), base: parent.base)
    }

    static func escaped(_ key: String) -> String {
        key.replacingOccurrences(of: "~", with: "~0").replacingOccurrences(of: "/", with: "~1")
    }

    // MARK: References

    private static func base(of value: JSONValue, within base: String) -> String {
        guard let id = value["$id"]?.string, !id.hasPrefix("#") else { return base }
        return resolve(id, base).document
    }

    /// The document and the fragment that a reference means.
    private static func resolve(_ reference: String, _ base: String) -> (document: String, fragment: String) {
        let parts = reference.split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false)
        let fragment = parts.count > 1 ? String(parts[1]) : ""
        guard let relative = parts.first, !relative.isEmpty else { return (base, fragment) }
        let resolved = URL(string: String(relative), relativeTo: URL(string: base))?.absoluteString ?? String(relative)
        return (resolved, fragment)
    }

    /// Finds all resources and anchors; without recursion, whatever the depth.
    private mutating func collect(_ value: JSONValue, _ path: String, base: String) throws(GrammarError) {
        var queue: [(JSONValue, String, String)] = [(value, path, base)]
        while let (value, path, outer) = queue.popLast() {
            switch value {
            case .object(let object):
                let base = Self.base(of: value, within: outer)
                if base != outer || value["$anchor"] != nil || value["$id"] != nil {
                    let place = try place(value, path, base: outer)
                    if base != outer { targets[ByteText(base)] = place }
                    if let anchor = value["$anchor"]?.string { targets[ByteText(base + "#" + anchor)] = place }
                    if let id = value["$id"]?.string, id.hasPrefix("#") { targets[ByteText(base + id)] = place }
                }
                for (key, member) in object where key != "enum" && key != "const" {
                    queue.append((member, path + "/" + Self.escaped(key), base))
                }
            case .array(let elements):
                for (index, element) in elements.enumerated() { queue.append((element, "\(path)/\(index)", outer)) }
            default: break
            }
        }
    }

    /// The schema that `reference`, at `place`, means.
    mutating func target(of reference: String, at place: Place) throws(GrammarError) -> Place {
        let origin = schemas[Int(place)]
        let (document, fragment) = Self.resolve(reference, origin.base)
        let unresolved = GrammarError.unresolvedReference(reference, path: origin.path)
        guard let start = targets[ByteText(document)] else { throw unresolved }
        if fragment.isEmpty { return start }
        guard fragment.hasPrefix("/") else {
            guard let anchored = targets[ByteText(document + "#" + fragment)] else { throw unresolved }
            return anchored
        }
        var (value, path, base) = (schemas[Int(start)].value, schemas[Int(start)].path, schemas[Int(start)].base)
        for part in fragment.dropFirst().split(separator: "/", omittingEmptySubsequences: false) {
            let key = (part.removingPercentEncoding ?? String(part))
                .replacingOccurrences(of: "~1", with: "/").replacingOccurrences(of: "~0", with: "~")
            base = Self.base(of: value, within: base)
            if let member = value[key] {
                value = member
            } else if let index = Int(key), let element = value[index] {
                value = element
            } else {
                throw unresolved
            }
            path += "/" + Self.escaped(key)
        }
        return try self.place(value, path, base: base)
    }
}
