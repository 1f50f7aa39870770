import Foundation
import NibbleCore

/// Python's operators.
enum JinjaOperators {
    typealias Arithmetic = JinjaExpression.ArithmeticOperator
    typealias Comparison = JinjaExpression.ComparisonOperator

    static func negative(_ value: JinjaValue) throws -> JinjaValue {
        if let number = value.wholeNumber { return .integer(-number) }
        if case .double(let number) = value { return .double(-number) }
        throw mismatch("a number after '-'", value)
    }

    static func positive(_ value: JinjaValue) throws -> JinjaValue {
        if let number = value.wholeNumber { return .integer(number) }
        if case .double = value { return value }
        throw mismatch("a number after '+'", value)
    }

    private static func mismatch(_ expected: String, _ value: JinjaValue) -> JinjaError {
        if case .undefined(let undefined) = value { return undefined.error }
        return JinjaError(.type(expected: expected, found: value.typeName))
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
        if let a = left.integer, let b = right.integer, let result = try small(symbol, a, b) { return result }
        if let a = left.wholeNumber, let b = right.wholeNumber { return try large(symbol, a, b, interpreter) }
        if let a = try left.floatingPoint(), let b = try right.floatingPoint() { return .double(try numbers(symbol, a, b)) }
        switch (symbol, left, right) {
        case (.add, .string(let a), .string(let b)):
            try interpreter.charge(text: a.utf8.count + b.utf8.count)
            return .string(a + b)
        case (.add, .array(let a), .array(let b)): return try interpreter.list(a.elements + b.elements)
        case (.add, .tuple(let a), .tuple(let b)): return try interpreter.tuple(a.elements + b.elements)
        case (.multiply, _, _):
            // Both `'ab' * 2` and `2 * 'ab'` are allowed.
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

    /// Integers of 64 bits; `nil` where the result is none.
    private static func small(_ symbol: Arithmetic, _ a: Int, _ b: Int) throws -> JinjaValue? {
        func result(_ result: (partialValue: Int, overflow: Bool)) -> JinjaValue? {
            result.overflow ? nil : .int(result.partialValue)
        }
        switch symbol {
        case .add: return result(a.addingReportingOverflow(b))
        case .subtract: return result(a.subtractingReportingOverflow(b))
        case .multiply: return result(a.multipliedReportingOverflow(by: b))
        case .divide, .power: return nil
        case .floorDivide, .modulo:
            guard b != 0 else { throw JinjaError(.arithmetic("division by zero")) }
            guard b != -1 else { return symbol == .modulo ? .int(0) : result(0.subtractingReportingOverflow(a)) }
            let (quotient, remainder) = a.quotientAndRemainder(dividingBy: b)
            let isOff = remainder != 0 && (remainder < 0) != (b < 0)
            return .int(symbol == .floorDivide ? (isOff ? quotient - 1 : quotient) : (isOff ? remainder + b : remainder))
        }
    }

    private static func large(
        _ symbol: Arithmetic, _ a: BigInteger, _ b: BigInteger, _ interpreter: JinjaInterpreter
    ) throws -> JinjaValue {
        try interpreter.charge(32 * (1 + a.limbs.count) * (1 + b.limbs.count))
        switch symbol {
        case .add: return try interpreter.integer(a + b)
        case .subtract: return try interpreter.integer(a - b)
        case .multiply: return try interpreter.integer(a * b)
        case .divide: return .double(try quotient(a, b))
        case .power: return try power(a, b, interpreter)
        case .floorDivide, .modulo:
            guard !b.isZero else { throw JinjaError(.arithmetic("division by zero")) }
            try interpreter.charge(32 * 32 * a.limbs.count * b.limbs.count)
            let (quotient, remainder) = a.dividedByFlooring(b)
            return .integer(symbol == .floorDivide ? quotient : remainder)
        }
    }

    /// `a / b`, rounded once.
    private static func quotient(_ a: BigInteger, _ b: BigInteger) throws -> Double {
        guard !b.isZero else { throw JinjaError(.arithmetic("division by zero")) }
        if a.bitWidth <= 53, b.bitWidth <= 53 { return a.double / b.double }
        // A quotient of at least 64 bits whose lowest bit marks a remainder rounds as the exact quotient does.
        let shift = max(0, 65 - a.bitWidth + b.bitWidth)
        let (quotient, remainder) = a.magnitude.shifted(left: shift).dividedByFlooring(b.magnitude)
        let bits = remainder.isZero ? quotient : (quotient.shifted(left: 1) + BigInteger(1))
        let value = scalbn(bits.double, -(shift + (remainder.isZero ? 0 : 1)))
        guard value.isFinite else { throw JinjaError(.arithmetic("the quotient of integers is too large for a float")) }
        return a.isNegative == b.isNegative ? value : -value
    }

    private static func power(_ base: BigInteger, _ exponent: BigInteger, _ interpreter: JinjaInterpreter) throws -> JinjaValue {
        if exponent.isNegative { return .double(try numbers(.power, base.double, exponent.double)) }
        if base.bitWidth <= 1 {
            let isOdd = (exponent.limbs.first ?? 0) & 1 == 1
            return .integer(exponent.isZero ? BigInteger(1) : base.isNegative && !isOdd ? -base : base)
        }
        let maximum = interpreter.limits.integerBits
        guard let count = exponent.int, count <= maximum, (base.bitWidth - 1) * count <= maximum else {
            throw JinjaError(.limit("bits of an integer", maximum: maximum))
        }
        var result = BigInteger(1)
        for bit in (0..<(Int.bitWidth - count.leadingZeroBitCount)).reversed() {
            try interpreter.charge(64 * (1 + result.limbs.count) * (1 + result.limbs.count))
            result = result * result
            if count >> bit & 1 == 1 { result = result * base }
        }
        return try interpreter.integer(result)
    }

    private static func numbers(_ symbol: Arithmetic, _ a: Double, _ b: Double) throws -> Double {
        switch symbol {
        case .add: return a + b
        case .subtract: return a - b
        case .multiply: return a * b
        case .power:
            guard a != 0 || b >= 0 else { throw JinjaError(.arithmetic("zero cannot be raised to a negative power")) }
            let result = pow(a, b)
            guard !result.isInfinite || a.isInfinite || b.isInfinite else {
                throw JinjaError(.arithmetic("the power is too large for a float"))
            }
            return result
        case .divide, .floorDivide, .modulo:
            guard b != 0 else { throw JinjaError(.arithmetic("division by zero")) }
            if symbol == .divide { return a / b }
            return floored(symbol, a, b)
        }
    }

    /// `a // b` or `a % b`, as CPython computes them.
    private static func floored(_ symbol: Arithmetic, _ a: Double, _ b: Double) -> Double {
        var remainder = fmod(a, b)
        var quotient = (a - remainder) / b
        if remainder == 0 {
            remainder = Double(signOf: b, magnitudeOf: 0)
        } else if (remainder < 0) != (b < 0) {
            remainder += b
            quotient -= 1
        }
        if symbol == .modulo { return remainder }
        guard quotient != 0 else { return Double(signOf: a / b, magnitudeOf: 0) }
        let whole = quotient.rounded(.down)
        return quotient - whole > 0.5 ? whole + 1 : whole
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

    /// `left == right`, charged as work: lists that hold one list many times are small but exponentially long to compare.
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
            if let order = JinjaValue.compare(left, right) { return orEqual ? order <= 0 : order < 0 }
            if left.number != nil, right.number != nil { return false }
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
