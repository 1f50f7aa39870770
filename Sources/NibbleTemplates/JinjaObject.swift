import NibbleCore

/// A dictionary in insertion order. A key is any hashable value, as in Python: `1`, `1.0` and `true` are one key.
public struct JinjaObject: Sendable {
    private var slots: [JinjaKey: Int] = [:]
    /// The keys in the order of insertion.
    package private(set) var keys: [JinjaValue] = []
    /// The values in the order of ``keys``.
    package private(set) var values: [JinjaValue] = []
    /// 1 for a dictionary of plain values.
    private(set) var depth = 1

    /// An empty dictionary.
    public init() {}

    /// A dictionary of these pairs; a repeated key keeps its first place and last value.
    public init(_ pairs: [(String, JinjaValue)]) {
        for (key, value) in pairs { self[key] = value }
    }

    /// The number of keys.
    package var count: Int { keys.count }
    /// Whether there are no keys.
    package var isEmpty: Bool { keys.isEmpty }

    /// The value of a string key. Replacing a value keeps the key's position. Setting nil does nothing.
    public subscript(key: String) -> JinjaValue? {
        get { slots[.string(key)].map { values[$0] } }
        set {
            guard let newValue else { return }
            set(.string(key), as: .string(key), to: newValue)
        }
    }

    /// - Throws: `type` for a key that Python cannot hash.
    func value(under key: JinjaValue) throws -> JinjaValue? {
        try slots[JinjaKey(key)].map { values[$0] }
    }

    /// - Throws: `type` for a key that Python cannot hash.
    mutating func set(_ key: JinjaValue, to value: JinjaValue) throws {
        set(try JinjaKey(key), as: key, to: value)
    }

    private mutating func set(_ slot: JinjaKey, as key: JinjaValue, to value: JinjaValue) {
        depth = Swift.max(depth, value.depth + 1, key.depth + 1)
        if let place = slots[slot] {
            values[place] = value
        } else {
            slots[slot] = keys.count
            keys.append(key)
            values.append(value)
        }
    }

    mutating func merge(_ other: JinjaObject) throws {
        for (key, value) in zip(other.keys, other.values) { try set(key, to: value) }
    }

    /// The pairs as tuples, in order.
    var items: [JinjaValue] { zip(keys, values).map { .tuple([$0, $1]) } }
}

extension JinjaObject: Equatable {
    /// Whether both hold equal values under equal keys, in any order.
    public static func == (left: JinjaObject, right: JinjaObject) -> Bool {
        guard left.count == right.count else { return false }
        return left.slots.allSatisfy { key, place in
            right.slots[key].map { left.values[place] == right.values[$0] } ?? false
        }
    }
}

/// A hashable form of a value, equal where Python's values are.
enum JinjaKey: Hashable, Sendable {
    case null
    case undefined
    case int(Int)
    case bigInteger(BigInteger)
    case double(Double)
    case text(ByteText)
    case tuple([JinjaKey])
    case identity(ObjectIdentifier)

    static func string(_ text: String) -> JinjaKey { .text(ByteText(text)) }

    init(_ value: JinjaValue) throws {
        switch value {
        case .null: self = .null
        case .undefined: self = .undefined
        case .bool, .int: self = .int(value.integer ?? 0)
        case .bigInteger(let number): self = .bigInteger(number)
        case .double(let number):
            if let whole = Int(exactly: number) {
                self = .int(whole)
            } else {
                let isWhole = number.isFinite && number == number.rounded(.towardZero)
                self = isWhole ? .bigInteger(BigInteger(truncating: number)) : .double(number)
            }
        case .string(let text): self = .string(text)
        case .tuple(let items): self = .tuple(try items.elements.map(JinjaKey.init))
        case .opaque(let opaque): self = .identity(ObjectIdentifier(opaque))
        case .array, .object:
            throw JinjaError(.type(expected: "a hashable value", found: value.typeName))
        }
    }
}
