/// A JSON value, with objects in the order they were written.
///
/// A number without fraction and exponent is an `.int`, or a `.largeInteger` where it does not fit; any other is a `.double`.
package enum JSONValue: Sendable, Equatable {
    case null
    case bool(Bool)
    case int(Int)
    /// The decimal text of an integer that does not fit `Int`.
    case largeInteger(String)
    case double(Double)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)
}

extension JSONValue {
    package var isNull: Bool { self == .null }

    package var bool: Bool? {
        if case .bool(let value) = self { value } else { nil }
    }

    /// The number, if it is a whole one that fits.
    package var int: Int? {
        switch self {
        case .int(let value): value
        case .double(let value): Int(exactly: value)
        default: nil
        }
    }

    /// The number, if it is a whole one from 0 to 2⁶⁴ − 1.
    package var uint64: UInt64? {
        switch self {
        case .int(let value): UInt64(exactly: value)
        case .largeInteger(let digits): UInt64(digits)
        case .double(let value): UInt64(exactly: value)
        default: nil
        }
    }

    /// The number, whole or not.
    package var double: Double? {
        switch self {
        case .int(let value): Double(value)
        case .largeInteger(let digits): Double(digits)
        case .double(let value): value
        default: nil
        }
    }

    package var string: String? {
        if case .string(let value) = self { value } else { nil }
    }

    package var array: [JSONValue]? {
        if case .array(let value) = self { value } else { nil }
    }

    package var object: JSONObject? {
        if case .object(let value) = self { value } else { nil }
    }

    /// The member `key` of an object; `nil` if there is none or this is not an object. A present `null` is `.null`.
    package subscript(key: String) -> JSONValue? { object?[key] }

    /// The element at `index`; `nil` outside an array.
    package subscript(index: Int) -> JSONValue? {
        guard let array, array.indices.contains(index) else { return nil }
        return array[index]
    }

    /// What an error message calls a value of this kind: "a string", "null" …
    package var kind: String {
        switch self {
        case .null: "null"
        case .bool(let value): value ? "true" : "false"
        case .int, .largeInteger, .double: "a number"
        case .string: "a string"
        case .array: "an array"
        case .object: "an object"
        }
    }
}

extension JSONValue {
    /// The value in a few words, for error messages: numbers and short texts as they are, other values by their kind.
    package var summary: String {
        switch self {
        case .int(let value): "\(value)"
        case .largeInteger(let digits): digits.count > 40 ? "a number of \(digits.count) digits" : digits
        case .double(let value): "\(value)"
        case .string(let text): "'\(text.prefix(60))'"
        case .null, .bool, .array, .object: kind
        }
    }
}

extension JSONValue: ExpressibleByNilLiteral, ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral,
    ExpressibleByFloatLiteral, ExpressibleByStringLiteral, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
    package init(nilLiteral: ()) { self = .null }
    /// `True` or `False`.
    public init(booleanLiteral value: Bool) { self = .bool(value) }
    /// An integer.
    public init(integerLiteral value: Int) { self = .int(value) }
    /// A float.
    public init(floatLiteral value: Double) { self = .double(value) }
    /// A string.
    public init(stringLiteral value: String) { self = .string(value) }
    package init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    package init(dictionaryLiteral elements: (String, JSONValue)...) { self = .object(JSONObject(elements)) }
}

extension JSONValue: CustomStringConvertible {
    package var description: String { encoded(.spaced) }
}
