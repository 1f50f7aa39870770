extension JSONReader {
    /// A whole number that fits `Int`, written without fraction and exponent.
    package mutating func integer() throws -> Int {
        guard let first = peek(), first == UInt8(ascii: "-") || isDigit(first) else { throw error("a whole number") }
        let start = position
        guard case .int(let value) = try number() else { throw error(at: start, "a whole number", "another number") }
        return value
    }

    /// A number, whole or not.
    package mutating func double() throws -> Double {
        guard let first = peek(), first == UInt8(ascii: "-") || isDigit(first) else { throw error("a number") }
        return try number().double ?? .nan
    }

    func isDigit(_ byte: UInt8) -> Bool { byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") }

    /// Digits at the current position, gathered into `value` as long as they fit.
    private mutating func digits(into value: inout UInt64, fits: inout Bool) throws -> Int {
        let start = position
        while position < end, isDigit(bytes[position]) {
            let (tenfold, tooLarge) = value.multipliedReportingOverflow(by: 10)
            let (sum, overflow) = tenfold.addingReportingOverflow(UInt64(bytes[position] - UInt8(ascii: "0")))
            if tooLarge || overflow { fits = false } else { value = sum }
            position += 1
        }
        guard position > start else { throw error("a digit") }
        return position - start
    }

    mutating func number() throws -> JSONValue {
        let start = position
        let negative = bytes[position] == UInt8(ascii: "-")
        if negative { position += 1 }
        if negative, options.contains(.nonFiniteNumbers), position < end, bytes[position] == UInt8(ascii: "I") {
            return try word("Infinity", .double(-.infinity))
        }
        var mantissa: UInt64 = 0
        var fits = true
        let leading = position
        let whole = try digits(into: &mantissa, fits: &fits)
        if whole > 1, bytes[leading] == UInt8(ascii: "0") {
            throw error(at: leading, "a number without leading zeros", "'0' before another digit")
        }
        let next = position < end ? bytes[position] : 0
        guard next == UInt8(ascii: ".") || next | 0x20 == UInt8(ascii: "e") else {
            return integer(mantissa, negative, fits, start..<position)
        }
        var fraction = 0
        if next == UInt8(ascii: ".") {
            position += 1
            fraction = try digits(into: &mantissa, fits: &fits)
        }
        var exponent = 0
        var exponentFits = true
        if position < end, bytes[position] | 0x20 == UInt8(ascii: "e") { try readExponent(into: &exponent, fits: &exponentFits) }
        let scale = exponentFits ? exponent.subtractingReportingOverflow(fraction).partialValue : .max
        if fits, exponentFits, mantissa <= 1 << 53, let power = Self.exactPowers[safely: scale.magnitude] {
            let value = scale < 0 ? Double(mantissa) / power : Double(mantissa) * power
            return .double(negative ? -value : value)
        }
        return .double(Self.correctlyRounded(bytes[start..<position]))
    }

    private func integer(_ magnitude: UInt64, _ negative: Bool, _ fits: Bool, _ digits: Range<Int>) -> JSONValue {
        if fits, let value = Int(exactly: magnitude) { return .int(negative ? -value : value) }
        if fits, negative, magnitude == Int.min.magnitude { return .int(.min) }
        return .largeInteger(String(decoding: bytes[digits], as: UTF8.self))
    }

    private mutating func readExponent(into exponent: inout Int, fits: inout Bool) throws {
        position += 1
        var negative = false
        if position < end, bytes[position] == UInt8(ascii: "-") || bytes[position] == UInt8(ascii: "+") {
            negative = bytes[position] == UInt8(ascii: "-")
            position += 1
        }
        var magnitude: UInt64 = 0
        _ = try digits(into: &magnitude, fits: &fits)
        guard let value = Int(exactly: magnitude) else {
            fits = false
            return
        }
        exponent = negative ? -value : value
    }

    /// For the rare numbers that one multiplication or division does not round correctly. Overflow gives infinity and
    /// underflow zero, as in Python.
    private static func correctlyRounded(_ digits: Slice<UnsafeRawBufferPointer>) -> Double {
        Double(String(decoding: digits, as: UTF8.self)) ?? .nan
    }

    private static let exactPowers: [Double] = [
        1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
        1e21, 1e22,
    ]
}

extension Array {
    fileprivate subscript(safely index: UInt) -> Element? { index < UInt(count) ? self[Int(index)] : nil }
}
