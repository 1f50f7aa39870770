/// A metadata value of a GGUF file. Whole numbers of every width are one case, as are floats.
package enum GGUFValue: Sendable, Equatable {
    case int(Int)
    /// Only where ``int(_:)`` cannot hold it.
    case uint(UInt64)
    case double(Double)
    case bool(Bool)
    case string(String)
    case ints([Int])
    case uints([UInt64])
    case doubles([Double])
    case bools([Bool])
    case strings([String])
    /// An array of arrays.
    case arrays([GGUFValue])
}

extension GGUFValue {
    package var int: Int? {
        if case .int(let value) = self { value } else { nil }
    }

    /// The number, whole or not.
    package var double: Double? {
        switch self {
        case .int(let value): Double(value)
        case .uint(let value): Double(value)
        case .double(let value): value
        default: nil
        }
    }

    package var bool: Bool? {
        if case .bool(let value) = self { value } else { nil }
    }

    package var string: String? {
        if case .string(let value) = self { value } else { nil }
    }

    package var strings: [String]? {
        if case .strings(let value) = self { value } else { nil }
    }

    package var ints: [Int]? {
        if case .ints(let value) = self { value } else { nil }
    }

    /// The numbers of an array, whole or not.
    package var doubles: [Double]? {
        switch self {
        case .doubles(let values): values
        case .ints(let values): values.map { Double($0) }
        case .uints(let values): values.map { Double($0) }
        default: nil
        }
    }
}
