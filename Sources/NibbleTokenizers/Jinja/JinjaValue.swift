/// A value in a chat template. Behaves as the Python value of the same name does: equality crosses number types
/// (`1 == 1.0 == true`), strings are sequences of code points and equal only if their code points are.
public enum JinjaValue: Sendable {
    /// Prints as nothing and is false; anything else that is asked of it is an error.
    case undefined(JinjaUndefined)
    /// `None`.
    case null
    /// `True` or `False`.
    case bool(Bool)
    /// An integer.
    case int(Int)
    /// A float.
    case double(Double)
    /// A string of code points.
    case string(String)
    /// A Python list.
    case array(JinjaArray)
    /// A Python tuple.
    case tuple(JinjaArray)
    /// A Python dict: insertion order is kept.
    case object(JinjaObject)
    /// Functions, macros, methods, namespaces, ranges, iterators: what only templates make, or `function(_:_:)`.
    case opaque(JinjaOpaque)
}

/// Why a value is undefined; the text of the error if it is used.
public struct JinjaUndefined: Sendable {
    package var explanation: String
    /// Set for attributes the sandbox hides.
    var isForbidden = false

    package init(_ explanation: String) { self.explanation = explanation }

    static func forbidden(_ explanation: String) -> JinjaUndefined {
        var undefined = JinjaUndefined(explanation)
        undefined.isForbidden = true
        return undefined
    }

    var error: JinjaError { JinjaError(isForbidden ? .forbidden(explanation) : .undefined(explanation)) }
}

/// The elements of a list or tuple, with the depth of what is nested in them.
public struct JinjaArray: RandomAccessCollection, Sendable, ExpressibleByArrayLiteral {
    /// The elements in order.
    public let elements: [JinjaValue]
    /// 1 for a list of plain values.
    let depth: Int

    /// A list of these elements.
    public init(_ elements: [JinjaValue]) {
        self.elements = elements
        depth = 1 + (elements.lazy.map(\.depth).max() ?? 0)
    }

    /// A list of these elements.
    public init(arrayLiteral elements: JinjaValue...) { self.init(elements) }

    /// 0.
    public var startIndex: Int { 0 }
    /// The number of elements.
    public var endIndex: Int { elements.count }
    /// The element at `position`.
    public subscript(position: Int) -> JinjaValue { elements[position] }
}

extension JinjaValue {
    /// A Python list.
    public static func list(_ elements: [JinjaValue]) -> JinjaValue { .array(JinjaArray(elements)) }

    static func undefined(_ explanation: String) -> JinjaValue { .undefined(JinjaUndefined(explanation)) }

    static func strings(_ elements: [String]) -> JinjaValue { .list(elements.map(JinjaValue.string)) }

    /// A function that templates can call with positional and named arguments.
    package static func function(
        _ name: String, _ body: @escaping @Sendable ([JinjaValue], [String: JinjaValue]) throws -> JinjaValue
    ) -> JinjaValue {
        .opaque(
            JinjaOpaque(
                .function(name) { _, arguments in
                    try body(arguments.positional, Dictionary(arguments.named, uniquingKeysWith: { $1 }))
                }))
    }

    /// How deep lists and dictionaries are nested in this value; 0 for plain values. O(1).
    var depth: Int {
        switch self {
        case .array(let items), .tuple(let items): items.depth
        case .object(let object): object.depth
        case .opaque(let opaque): opaque.depth
        default: 0
        }
    }

    var isUndefined: Bool {
        if case .undefined = self { return true }
        return false
    }

    var isNull: Bool {
        if case .null = self { return true }
        return false
    }

    /// Python's truth: empty and zero things are false, iterators and functions are true.
    package var isTruthy: Bool {
        switch self {
        case .undefined, .null: false
        case .bool(let value): value
        case .int(let value): value != 0
        case .double(let value): value != 0
        case .string(let text): !text.isEmpty
        case .array(let items), .tuple(let items): !items.isEmpty
        case .object(let object): !object.isEmpty
        case .opaque(let opaque): opaque.count.map { $0 > 0 } ?? true
        }
    }

    /// The type's name in Python, for messages.
    var typeName: String {
        switch self {
        case .undefined: "undefined"
        case .null: "None"
        case .bool: "bool"
        case .int: "int"
        case .double: "float"
        case .string: "str"
        case .array: "list"
        case .tuple: "tuple"
        case .object: "dict"
        case .opaque(let opaque): opaque.typeName
        }
    }

    /// The integer in an `int` or `bool`.
    var integer: Int? {
        switch self {
        case .int(let value): value
        case .bool(let value): value ? 1 : 0
        default: nil
        }
    }

    /// The number in an `int`, `bool` or `float`.
    var number: Double? {
        if case .double(let value) = self { return value }
        return integer.map(Double.init)
    }
}

extension JinjaValue: Equatable {
    /// Equality as Python has it.
    public static func == (left: JinjaValue, right: JinjaValue) -> Bool {
        switch (left, right) {
        case (.undefined, .undefined), (.null, .null): true
        case (.string(let a), .string(let b)): PythonText.equal(a, b)
        case (.array(let a), .array(let b)), (.tuple(let a), .tuple(let b)): a.elements == b.elements
        case (.object(let a), .object(let b)): a == b
        case (.opaque(let a), .opaque(let b)): a == b
        default:
            if let a = left.integer, let b = right.integer {
                a == b
            } else if let a = left.number, let b = right.number {
                a == b
            } else {
                false
            }
        }
    }
}

extension JinjaValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral,
    ExpressibleByFloatLiteral, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
    /// A string.
    public init(stringLiteral value: String) { self = .string(value) }
    /// An integer.
    public init(integerLiteral value: Int) { self = .int(value) }
    /// `True` or `False`.
    public init(booleanLiteral value: Bool) { self = .bool(value) }
    /// A float.
    public init(floatLiteral value: Double) { self = .double(value) }
    /// A list.
    public init(arrayLiteral elements: JinjaValue...) { self = .list(elements) }
    /// A dictionary, in the order of the literal.
    public init(dictionaryLiteral elements: (String, JinjaValue)...) {
        var object = JinjaObject()
        for (key, value) in elements { object[key] = value }
        self = .object(object)
    }
}
