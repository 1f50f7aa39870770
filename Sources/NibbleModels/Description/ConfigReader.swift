package import NibbleCore
internal import Synchronization

/// Typed access to `config.json`. Key, alternatives and default are given where a value is read.
///
/// A field that is absent or `null` gives way to the next alternative, then to the default. A field of the wrong type is an
/// error that names the file, the field and the value found.
package struct ConfigReader: Sendable {
    package let file: String
    package let values: JSONObject
    private let notes: Notes

    package init(_ values: JSONObject, file: String = "config.json") { self.init(values, file: file, Notes()) }

    private init(_ values: JSONObject, file: String, _ notes: Notes) {
        self.values = values
        self.file = file
        self.notes = notes
    }

    /// The warnings of all readers of one file.
    private final class Notes: Sendable {
        let texts = Mutex<[String]>([])
    }

    /// Warnings about the fields read so far.
    package var warnings: [String] { notes.texts.withLock { $0 } }

    /// Records that the value of `field` has no effect.
    func noteUnread(_ field: String, because reason: String) {
        let text = "\(file): \(field) has no effect: \(reason)"
        notes.texts.withLock { if !$0.contains(text) { $0.append(text) } }
    }

    /// A reader of other values that belong to the same file.
    func nested(_ values: JSONObject) -> ConfigReader { ConfigReader(values, file: file, notes) }

    package func value(_ keys: String...) -> JSONValue? { value(keys) }

    private func value(_ keys: [String]) -> JSONValue? {
        for key in keys {
            if let value = values[key], !value.isNull { return value }
        }
        return nil
    }

    private func read<T>(_ keys: [String], _ expected: String, _ convert: (JSONValue) -> T?) throws -> T? {
        guard let found = value(keys) else { return nil }
        guard let converted = convert(found) else {
            throw ModelError.wrongField(keys[0], file: file, expected: expected, found: found.encoded(.spaced))
        }
        return converted
    }

    private func required<T>(_ value: T?, _ keys: [String]) throws -> T {
        guard let value else { throw ModelError.missingField(keys[0], file: file) }
        return value
    }

    /// A count: whole and not negative.
    package func optionalInt(_ keys: String...) throws -> Int? { try count(keys) }
    package func int(_ keys: String...) throws -> Int { try required(count(keys), keys) }
    package func int(_ keys: String..., default fallback: Int) throws -> Int { try count(keys) ?? fallback }

    /// Larger counts are mistakes. The bound keeps every product of two sizes within 64 bits.
    private static let largestCount = 1 << 30

    private func count(_ keys: [String]) throws -> Int? {
        try read(keys, "a whole number from 0 to \(Self.largestCount)") { value in
            value.int.flatMap { (0...Self.largestCount).contains($0) ? $0 : nil }
        }
    }

    /// A number of positions. Configs may name more than any text has; larger numbers are cut to the largest 32-bit position.
    package func optionalPositions(_ keys: String...) throws -> Int? { try positions(keys) }
    package func positions(_ keys: String..., default fallback: Int) throws -> Int { try positions(keys) ?? fallback }

    private func positions(_ keys: [String]) throws -> Int? {
        try read(keys, "a whole number that is not negative") { value in
            guard let number = value.double, number >= 0, number == number.rounded() else { return nil }
            return Int(min(number, Double(Int32.max)))
        }
    }

    /// A size that something is divided by or made of: at least 1.
    package func size(_ keys: String...) throws -> Int { try required(positive(keys), keys) }
    func size(_ keys: [String]) throws -> Int { try required(positive(keys), keys) }
    package func size(_ keys: String..., default fallback: Int) throws -> Int { try positive(keys) ?? fallback }

    private func positive(_ keys: [String]) throws -> Int? {
        try read(keys, "a whole number from 1 to \(Self.largestCount)") { value in
            value.int.flatMap { (1...Self.largestCount).contains($0) ? $0 : nil }
        }
    }

    package func optionalDouble(_ keys: String...) throws -> Double? { try read(keys, "a number", \.double) }
    package func double(_ keys: String..., default fallback: Double) throws -> Double {
        try read(keys, "a number", \.double) ?? fallback
    }
    package func float(_ keys: String..., default fallback: Float) throws -> Float {
        try read(keys, "a number", \.double).map { Float($0) } ?? fallback
    }

    package func bool(_ keys: String..., default fallback: Bool) throws -> Bool {
        try read(keys, "true or false", \.bool) ?? fallback
    }

    package func optionalString(_ keys: String...) throws -> String? { try read(keys, "a string", \.string) }
    package func string(_ keys: String..., default fallback: String) throws -> String {
        try read(keys, "a string", \.string) ?? fallback
    }

    /// A list of numbers.
    package func doubles(_ key: String) throws -> [Double]? {
        try read([key], "a list of numbers") { value in
            guard let array = value.array else { return nil }
            let numbers = array.compactMap(\.double)
            return numbers.count == array.count ? numbers : nil
        }
    }

    package func strings(_ key: String) throws -> [String]? {
        try read([key], "a list of strings") { value in
            guard let array = value.array else { return nil }
            let strings = array.compactMap(\.string)
            return strings.count == array.count ? strings : nil
        }
    }

    /// A nested object, under the same error rules.
    package func object(_ keys: String...) throws -> ConfigReader? {
        try read(keys, "an object", \.object).map(nested)
    }

    package func optionalSize(_ keys: String...) throws -> Int? { try positive(keys) }

    /// The number of layers. Bounded, because each layer becomes modules right away.
    package func layerCount(_ keys: String..., default fallback: Int? = nil) throws -> Int {
        try layerCount(keys, default: fallback)
    }

    func layerCount(_ keys: [String], default fallback: Int? = nil) throws -> Int {
        let limit = 1 << 12
        let layers = try read(keys, "a whole number from 0 to \(limit)") { value in
            value.int.flatMap { (0...limit).contains($0) ? $0 : nil }
        }
        return try required(layers ?? fallback, keys)
    }

    /// The number of attention heads or experts: bounded like ``layerCount(_:default:)``.
    package func headCount(_ keys: String..., default fallback: Int? = nil) throws -> Int {
        try headCount(keys, default: fallback)
    }

    func headCount(_ keys: [String], default fallback: Int? = nil) throws -> Int {
        let limit = 1 << 12
        let heads = try read(keys, "a whole number from 1 to \(limit)") { value in
            value.int.flatMap { (1...limit).contains($0) ? $0 : nil }
        }
        return try required(heads ?? fallback, keys)
    }

    /// The same config with the family's defaults for keys it lacks. A key that is there as `null` stays `null`.
    package func filled(_ defaults: JSONObject) -> ConfigReader {
        var filled = values
        for (key, value) in defaults where filled[key] == nil { filled[key] = value }
        return nested(filled)
    }

    /// The same config with another value for one field.
    func replacing(_ field: String, _ value: JSONValue) -> ConfigReader {
        var replaced = values
        replaced[field] = value
        return nested(replaced)
    }

    /// The same config in which a field that is absent has the value of its alias.
    func aliasing(_ aliases: [String: String]) -> ConfigReader {
        var aliased = values
        for (field, alias) in aliases where aliased[field] == nil { aliased[field] = values[alias] }
        return nested(aliased)
    }

    /// The kind of each layer, from `layer_types`, or `fallback` of its index.
    package func layerTypes(
        _ count: Int, known: [String] = ["full_attention", "sliding_attention"], default fallback: (Int) -> String
    ) throws -> [String] {
        let types = try strings("layer_types") ?? (0..<count).map(fallback)
        guard types.count == count, types.allSatisfy(known.contains) else {
            throw ModelError.wrongField(
                "layer_types", file: file, expected: "\(count) of \(known.joined(separator: ", "))",
                found: "\(types.count) of \(Set(types).sorted().prefix(4).joined(separator: ", "))")
        }
        return types
    }

    /// Heads must divide the width where a family has no field for the head size.
    package func headSize(width: Int, heads: Int) throws -> Int {
        guard width % heads == 0 else {
            throw ModelError.wrongField(
                "hidden_size", file: file, expected: "a multiple of the \(heads) heads", found: String(width))
        }
        return width / heads
    }

    package func require(_ condition: Bool, _ field: String, _ expected: String) throws {
        guard condition else {
            throw ModelError.wrongField(
                field, file: file, expected: expected, found: values[field]?.encoded(.spaced) ?? "nothing")
        }
    }

    /// The activation named by one of `keys`.
    package func activation(_ keys: String..., default fallback: String) throws -> NamedActivation {
        let name = try read(keys, "a string", \.string) ?? fallback
        guard let activation = NamedActivation(name) else {
            throw ModelError.wrongField(keys[0], file: file, expected: "a known activation", found: "\"\(name)\"")
        }
        return activation
    }
}

/// An activation as a config names it: the function, and the class of its module in the reference.
package struct NamedActivation: Sendable {
    package let function: Activation
    package let className: String

    package init?(_ name: String) {
        guard let function = Activation(name: name), let className = Self.classNames[name] else { return nil }
        self.function = function
        self.className = className
    }

    private static let classNames = [
        "linear": "LinearActivation", "relu": "ReLU", "relu2": "ReLUSquaredActivation", "gelu": "GELUActivation",
        "gelu_python": "GELUActivation", "gelu_new": "NewGELUActivation", "gelu_pytorch_tanh": "GELUTanh",
        "gelu_python_tanh": "GELUTanh", "gelu_fast": "FastGELUActivation", "quick_gelu": "QuickGELUActivation",
        "silu": "SiLUActivation", "swish": "SiLU", "sigmoid": "Sigmoid", "tanh": "Tanh",
    ]
}

extension Activation {
    /// The names used in configs.
    package init?(name: String) {
        switch name {
        case "linear": self = .identity
        case "relu": self = .relu
        case "relu2": self = .reluSquared
        case "gelu", "gelu_python": self = .gelu
        case "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python_tanh": self = .geluTanh
        case "quick_gelu": self = .quickGelu
        case "silu", "swish": self = .silu
        case "sigmoid": self = .sigmoid
        case "tanh": self = .tanh
        default: return nil
        }
    }
}
