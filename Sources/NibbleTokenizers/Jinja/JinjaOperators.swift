import Foundation

/// Python's operators. Integers are 64-bit: what overflows is an error, not a wrong number.
enum JinjaOperators {
    typealias Arithmetic = JinjaExpression.ArithmeticOperator
    typealias Comparison = JinjaExpression.ComparisonOperator

    static func negative(_ value: JinjaValue) throws -> JinjaValue {
        if let number = value.integer { return .int(try checked(0.subtractingReportingOverflow(number))) }
        if case .double(let number) = value { return .double(-number) }
        throw mismatch("a number after '-'", value)
    }

    static func positive(_ value: JinjaValue) throws -> JinjaValue {
        if let number = value.integer { return .int(number) }
        if case .double = value { return value }
        throw mismatch("a number after '+'", value)
    }

    private static func mismatch(_ expected: String, _ value: JinjaValue) -> JinjaError {
        if case .undefined(let undefined) = value { return undefined.error }
        return JinjaError(.type(expected: expected, found: value.typeName))
    }

    private static func checked(_ result: (partialValue: Int, overflow: Bool)) throws -> Int {
        guard !result.overflow else { throw JinjaError(.arithmetic("an integer does not fit 64 bits")) }
        return result.partialValue
    }

    // MARK: Arithmetic

    static func apply(_ symbol: Arithmetic, _ left: JinjaValue, _ right: JinjaValue, _ interpreter: JinjaInterpreter) throws
        -> JinjaValue
    {
        if case .undefined(let undefined) = left { throw undefined.error }
        if case .string(let format) = left, symbol == .modulo {
            return try interpreter.string(try JinjaFormat.percent(format, right, interpreter))
        }
        if case .undefined(let undefined) = right { throw undefined.error }
        if let a = left.integer, let b = right.integer { return try integers(symbol, a, b) }
        if let a = left.number, let b = right.number { return .double(try numbers(symbol, a, b)) }
        switch (symbol, left, right) {
        case (.add, .string(let a), .string(let b)):
            try interpreter.charge(text: a.utf8.count + b.utf8.count)
            return .string(a + b)
        case (.add, .array(let a), .array(let b)): return try interpreter.list(a.elements + b.elements)
        case (.add, .tuple(let a), .tuple(let b)): return try interpreter.tuple(a.elements + b.elements)
        case (.multiply, _, _):
            // Either order: 'ab' * 2, 2 * 'ab'.
            let (sequence, count) = right.integer == nil ? (right, left) : (left, right)
            if let times = count.integer, let product = try repeated(sequence, max(times, 0), interpreter) { return product }
        default: break
        }
        throw JinjaError(
            .type(expected: "operands that '\(symbol.rawValue)' takes", found: "\(left.typeName) and \(right.typeName)"))
    }

    private static func repeated(_ sequence: JinjaValue, _ times: Int, _ interpreter: JinjaInterpreter) throws -> JinjaValue? {
        func bytes(_ size: Int) -> Int {
            let (product, overflow) = size.multipliedReportingOverflow(by: times)
            return overflow ? .max / 2 : product
        }
        switch sequence {
        case .string(let text):
            try interpreter.charge(text: bytes(text.utf8.count))
            return .string(PythonText.repeated(text, times))
        case .array(let items), .tuple(let items):
            try interpreter.charge(text: bytes(16 * items.count))
            let product = JinjaArray(Array(repeatElement(items.elements, count: items.isEmpty ? 0 : times).joined()))
            if case .tuple = sequence { return .tuple(product) }
            return .array(product)
        default: return nil
        }
    }

    private static func integers(_ symbol: Arithmetic, _ a: Int, _ b: Int) throws -> JinjaValue {
        switch symbol {
        case .add: return .int(try checked(a.addingReportingOverflow(b)))
        case .subtract: return .int(try checked(a.subtractingReportingOverflow(b)))
        case .multiply: return .int(try checked(a.multipliedReportingOverflow(by: b)))
        case .divide: return .double(try numbers(.divide, Double(a), Double(b)))
        case .power: return try power(a, b)
        case .floorDivide, .modulo:
            guard b != 0 else { throw JinjaError(.arithmetic("division by zero")) }
            let quotient = try checked(a.dividedReportingOverflow(by: b))
            let remainder = a - quotient * b
            let isOff = remainder != 0 && (remainder < 0) != (b < 0)
            return .int(symbol == .floorDivide ? (isOff ? quotient - 1 : quotient) : (isOff ? remainder + b : remainder))
        }
    }

    private static func power(_ base: Int, _ exponent: Int) throws -> JinjaValue {
        guard exponent >= 0 else { return .double(try numbers(.power, Double(base), Double(exponent))) }
        var (result, square, rest) = (1, base, exponent)
        while rest > 0 {
            if rest & 1 == 1 { result = try checked(result.multipliedReportingOverflow(by: square)) }
            rest >>= 1
            // 0, 1 and -1 to any power; everything else overflows within 63 steps.
            if rest > 0 { square = try checked(square.multipliedReportingOverflow(by: square)) }
        }
        return .int(result)
    }

    private static func numbers(_ symbol: Arithmetic, _ a: Double, _ b: Double) throws -> Double {
        switch symbol {
        case .add: return a + b
        case .subtract: return a - b
        case .multiply: return a * b
        case .power:
            guard a != 0 || b >= 0 else { throw JinjaError(.arithmetic("zero cannot be raised to a negative power")) }
            return pow(a, b)
        case .divide, .floorDivide, .modulo:
            guard b != 0 else { throw JinjaError(.arithmetic("division by zero")) }
            if symbol == .divide { return a / b }
            var remainder = fmod(a, b)
            if remainder != 0, (remainder < 0) != (b < 0) { remainder += b }
            return symbol == .modulo ? remainder : ((a - remainder) / b).rounded()
        }
    }

    // MARK: Comparisons

    static func compare(_ comparison: Comparison, _ left: JinjaValue, _ right: JinjaValue, _ interpreter: JinjaInterpreter) throws
        -> Bool
    {
        switch comparison {
        case .equal: try equal(left, right, interpreter)
        case .notEqual: try !equal(left, right, interpreter)
        case .less: try precedes(left, right, interpreter)
        case .greater: try precedes(right, left, interpreter)
        case .lessOrEqual: try precedes(left, right, orEqual: true, interpreter)
        case .greaterOrEqual: try precedes(right, left, orEqual: true, interpreter)
        case .contained: try contains(right, left, interpreter)
        case .notContained: try !contains(right, left, interpreter)
        }
    }

    /// `left == right`, counted: lists that hold one list many times are small to make and endless to compare.
    static func equal(_ left: JinjaValue, _ right: JinjaValue, _ interpreter: JinjaInterpreter) throws -> Bool {
        try interpreter.charge(16)
        switch (left, right) {
        case (.string(let a), .string(let b)):
            guard a.utf8.count == b.utf8.count else { return false }
            try interpreter.charge(a.utf8.count)
            return PythonText.equal(a, b)
        case (.array(let a), .array(let b)), (.tuple(let a), .tuple(let b)):
            return try a.count == b.count && zip(a, b).allSatisfy { try equal($0, $1, interpreter) }
        case (.object(let a), .object(let b)):
            guard a.count == b.count else { return false }
            return try zip(a.keys, a.values).allSatisfy { key, value in
                try interpreter.charge(key: key)
                return try b.value(under: key).map { try equal(value, $0, interpreter) } ?? false
            }
        default: return left == right
        }
    }

    /// `left < right`, or `left <= right`.
    static func precedes(_ left: JinjaValue, _ right: JinjaValue, orEqual: Bool = false, _ interpreter: JinjaInterpreter) throws
        -> Bool
    {
        try interpreter.charge(16)
        switch (left, right) {
        case (.string(let a), .string(let b)):
            try interpreter.charge(min(a.utf8.count, b.utf8.count))
            return orEqual ? !PythonText.precedes(b, a) : PythonText.precedes(a, b)
        case (.array(let a), .array(let b)), (.tuple(let a), .tuple(let b)):
            for (x, y) in zip(a, b) where try !equal(x, y, interpreter) {
                return try precedes(x, y, orEqual: orEqual, interpreter)
            }
            return orEqual ? a.count <= b.count : a.count < b.count
        case (.undefined(let undefined), _), (_, .undefined(let undefined)): throw undefined.error
        default:
            if let a = left.integer, let b = right.integer { return orEqual ? a <= b : a < b }
            if let a = left.number, let b = right.number { return orEqual ? a <= b : a < b }
            throw JinjaError(.type(expected: "values that have an order", found: "\(left.typeName) and \(right.typeName)"))
        }
    }

    /// `value in container`.
    static func contains(_ container: JinjaValue, _ value: JinjaValue, _ interpreter: JinjaInterpreter) throws -> Bool {
        switch container {
        case .string(let text):
            guard case .string(let part) = value else { throw mismatch("a string to look for in a string", value) }
            try interpreter.charge(text.utf8.count)
            return PythonText.contains(text, part)
        case .object(let object):
            try interpreter.charge(key: value)
            return try object.value(under: value) != nil
        default: return try interpreter.elements(of: container).contains { try equal($0, value, interpreter) }
        }
    }
}
