/// A value in a chat template. Behaves as the Python value of the same name does: equality crosses number types
/// (`1 == 1.0 == true`), strings are sequences of code points and equal only if their code points are.
public enum JinjaValue: Sendable {
    /// Prints as an empty text and is false. Any other use is an error.
    case undefined(JinjaUndefined)
    /// `None`.
    case null
    /// `True` or `False`.
    case bool(Bool)
    /// An integer.
    case int(Int)
    /// An integer that does not fit `int`.
    case bigInteger(BigInteger)
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
    /// A value that exists only inside a rendering: a function, macro, method, namespace, range or iterator.
    case opaque(JinjaOpaque)
}

/// The reason why a value is undefined: the text of the error if it is used.
public struct JinjaUndefined: Sendable {
    package var explanation: String
    /// True for attributes that the sandbox hides.
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
    /// Attributes by which the elements of a named tuple are found.
    let names: [String]

    /// A list of these elements.
    public init(_ elements: [JinjaValue]) { self.init(elements, names: []) }

    init(_ elements: [JinjaValue], names: [String]) {
        self.elements = elements
        self.names = names
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
    package static func list(_ elements: [JinjaValue]) -> JinjaValue { .array(JinjaArray(elements)) }

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
        case .bigInteger: true
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
        case .int, .bigInteger: "int"
        case .double: "float"
        case .string: "str"
        case .array: "list"
        case .tuple: "tuple"
        case .object: "dict"
        case .opaque(let opaque): opaque.typeName
        }
    }

    /// An integer in its only form: `int` where it fits.
    static func integer(_ value: BigInteger) -> JinjaValue { value.int.map(JinjaValue.int) ?? .bigInteger(value) }

    /// The elements of a list or tuple.
    var sequence: [JinjaValue]? {
        switch self {
        case .array(let items), .tuple(let items): items.elements
        default: nil
        }
    }

    /// The integer in an `int` or `bool`, whatever its size.
    var wholeNumber: BigInteger? {
        if case .bigInteger(let value) = self { return value }
        return integer.map { BigInteger($0) }
    }

    /// The integer in an `int` or `bool`, if it fits 64 bits.
    var integer: Int? {
        switch self {
        case .int(let value): value
        case .bool(let value): value ? 1 : 0
        default: nil
        }
    }

    /// The number in an `int`, `bool` or `float`; infinite for integers beyond the range of doubles.
    var number: Double? {
        switch self {
        case .double(let value): value
        case .bigInteger(let value): value.double
        default: integer.map(Double.init)
        }
    }

    /// `float(number)`; `nil` for what is no number.
    /// - Throws: `arithmetic` for integers beyond the range of doubles, as Python raises.
    func floatingPoint() throws -> Double? {
        guard case .bigInteger(let value) = self, value.double.isInfinite else { return number }
        throw JinjaError(.arithmetic("an integer is too large to convert to float"))
    }

    /// How two numbers compare, exactly also across types; `nil` if one is no number or NaN.
    static func compare(_ left: JinjaValue, _ right: JinjaValue) -> Int? {
        if let a = left.integer, let b = right.integer { return (a > b ? 1 : 0) - (a < b ? 1 : 0) }
        if let a = left.wholeNumber, let b = right.wholeNumber { return (a > b ? 1 : 0) - (a < b ? 1 : 0) }
        guard let a = left.number, let b = right.number, !a.isNaN, !b.isNaN else { return nil }
        if let whole = left.wholeNumber, b.isFinite { return compare(whole, b) }
        if let whole = right.wholeNumber, a.isFinite { return compare(whole, a).map { -$0 } }
        if left.wholeNumber != nil { return b > 0 ? -1 : 1 }
        if right.wholeNumber != nil { return a > 0 ? 1 : -1 }
        return (a > b ? 1 : 0) - (a < b ? 1 : 0)
    }

    private static func compare(_ a: BigInteger, _ b: Double) -> Int? {
        let whole = BigInteger(truncating: b)
        if a != whole { return a < whole ? -1 : 1 }
        let fraction = b - b.rounded(.towardZero)
        return fraction == 0 ? 0 : fraction > 0 ? -1 : 1
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
        default: compare(left, right) == 0
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
