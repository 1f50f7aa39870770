package import NibbleCore

extension JinjaValue {
    /// A JSON value as Python's `json.loads` gives it to a template. Objects keep the order of their keys; a repeated key
    /// keeps its first place and last value.
    package init(_ json: JSONValue) {
        switch json {
        case .null: self = .null
        case .bool(let flag): self = .bool(flag)
        case .int(let number): self = .int(number)
        case .largeInteger(let digits):
            self = BigInteger(digits, radix: 10).map(JinjaValue.integer) ?? .double(Double(digits) ?? .nan)
        case .double(let number): self = .double(number)
        case .string(let text): self = .string(text)
        case .array(let elements): self = .list(elements.map(JinjaValue.init))
        case .object(let members): self = .object(JinjaObject(members.map { ($0.key, JinjaValue($0.value)) }))
        }
    }

    /// Reads JSON text. Numbers without fraction and exponent are integers of any size.
    /// - Throws: `JinjaError` (`json`) for text that is not JSON or is nested too deeply.
    public init(json text: String) throws {
        do {
            self.init(try JSONValue.parse(text))
        } catch let error as JSONError {
            throw JinjaError(.json(error))
        }
    }
}
