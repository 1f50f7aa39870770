import NibbleCore

/// The kinds of JSON values, integers apart from other numbers.
struct JSONKinds: OptionSet, Hashable, Sendable {
    let rawValue: UInt8

    static let null = JSONKinds(rawValue: 1)
    static let boolean = JSONKinds(rawValue: 2)
    static let integer = JSONKinds(rawValue: 4)
    static let fraction = JSONKinds(rawValue: 8)
    static let string = JSONKinds(rawValue: 16)
    static let array = JSONKinds(rawValue: 32)
    static let object = JSONKinds(rawValue: 64)
    static let number: JSONKinds = [.integer, .fraction]
    static let all: JSONKinds = [.null, .boolean, .number, .string, .array, .object]

    init(rawValue: UInt8) { self.rawValue = rawValue }

    init?(name: String) {
        switch name {
        case "null": self = .null
        case "boolean": self = .boolean
        case "integer": self = .integer
        case "number": self = .number
        case "string": self = .string
        case "array": self = .array
        case "object": self = .object
        default: return nil
        }
    }

    init(of value: JSONValue) {
        if let number = value.double {
            self = number.rounded() == number ? .integer : .fraction
        } else if value.isNull {
            self = .null
        } else if value.bool != nil {
            self = .boolean
        } else if value.string != nil {
            self = .string
        } else {
            self = value.array != nil ? .array : .object
        }
    }
}

/// What several schemas together ask of a value.
struct SchemaConstraints {
    typealias Place = SchemaDocument.Place

    /// One schema's say about the members of an object.
    struct Members {
        private(set) var properties: [(name: String, schema: Place)] = []
        private var places: [ByteText: Place] = [:]
        var patterns: [(pattern: String, schema: Place)] = []
        /// For members that neither names; `nil`: anything.
        var others: Place?

        mutating func add(_ name: String, _ schema: Place) {
            properties.append((name, schema))
            places[ByteText(name)] = schema
        }

        /// The schema of the member with this name.
        subscript(name: String) -> Place? { places[ByteText(name)] }
    }

    /// One schema's say about the elements of an array.
    struct Elements {
        var first: [Place] = []
        /// For elements behind ``first``; `nil`: anything.
        var others: Place?
    }

    var kinds = JSONKinds.all
    /// The values it may have; `nil`: any.
    var values: [JSONValue]?
    var minimum: (value: Decimal10, isExclusive: Bool)?
    var maximum: (value: Decimal10, isExclusive: Bool)?
    var divisors: [Decimal10] = []
    var minimumLength = 0
    var maximumLength: Int?
    var patterns: [String] = []
    var formats: [String] = []
    /// Patterns that match nowhere, and formats that a string does not have.
    var otherPatterns: [String] = []
    var otherFormats: [String] = []
    /// Strings and numbers that a value is not.
    var excluded: [JSONValue] = []
    var elements: [Elements] = []
    /// Schemas of which an array holds some elements.
    var contained: [(schema: Place, minimum: Int, maximum: Int?)] = []
    var minimumElements = 0
    var maximumElements: Int?
    var members: [Members] = []
    private(set) var required: [String] = []
    private var requiredNames: Set<ByteText> = []
    var minimumMembers = 0
    var maximumMembers: Int?
    var names: [Place] = []
    /// Sets of schemas of which one must be satisfied, and where each set stands.
    var choices: [Choice] = []
    /// The schemas that were taken together, those of references and `allOf` included.
    var places: Set<Place> = []

    struct Choice {
        var place: Place
        /// The keyword it comes from, and the keywords that only mean something beside it.
        var keyword: String
        var companions: [String] = []
        var schemas: [Place]
    }

    mutating func require(_ name: String) {
        if requiredNames.insert(ByteText(name)).inserted { required.append(name) }
    }

    func requires(_ name: String) -> Bool { requiredNames.contains(ByteText(name)) }

    mutating func raiseMinimum(_ value: Decimal10, isExclusive: Bool) {
        if let old = minimum, old.value > value || (old.value == value && old.isExclusive) { return }
        minimum = (value, isExclusive)
    }

    mutating func lowerMaximum(_ value: Decimal10, isExclusive: Bool) {
        if let old = maximum, old.value < value || (old.value == value && old.isExclusive) { return }
        maximum = (value, isExclusive)
    }
}
