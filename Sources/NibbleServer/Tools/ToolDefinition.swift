import NibbleCore
import NibbleTemplates

/// A function that the model may call, as the request describes it.
struct ToolDefinition: Sendable {
    var name: String
    /// The whole description, as templates see it.
    var description: JinjaValue
    /// A schema of its arguments.
    var parameters: JSONValue
    /// Whether arguments must satisfy the schema in every respect.
    var isStrict = false

    /// Functions that say nothing of parameters have none.
    private static let noParameters: JSONValue = ["type": "object", "properties": [:], "additionalProperties": false]

    init(_ field: JSONField) throws {
        let type = try field.child("type")?.string() ?? "function"
        guard type == "function" else { throw try field.required("type").unexpected("'function'") }
        let function = try field.required("function")
        name = try function.text("name")
        guard !name.isEmpty else { throw try function.required("name").unexpected("a name") }
        parameters = function.child("parameters")?.value ?? Self.noParameters
        isStrict = try function.flag("strict", default: false)
        description = JinjaValue(field.value)
    }

    init(name: String, description: String?, parameters: JSONValue) {
        self.name = name
        self.parameters = parameters
        var function: JSONObject = ["name": .string(name)]
        if let description { function["description"] = .string(description) }
        function["parameters"] = parameters
        self.description = JinjaValue(.object(["type": "function", "function": .object(function)]))
    }
}

/// What the request says about calling functions.
enum ToolChoice: Sendable, Equatable {
    case auto
    case none
    /// At least one call.
    case required
    /// A call of this function.
    case named(String)

    init(_ body: JSONField, tools: [ToolDefinition]) throws {
        guard let field = body.child("tool_choice") else {
            self = .auto
            return
        }
        if let word = field.value.string {
            switch word {
            case "auto": self = .auto
            case "none": self = .none
            case "required": self = .required
            default: throw field.unexpected("auto, none, required or a function")
            }
            if self == .required, tools.isEmpty { throw field.unexpected("tools beside it") }
            return
        }
        let name = try field.required("function").text("name")
        guard tools.contains(where: { $0.name == name }) else {
            throw try field.required("function").required("name").unexpected("the name of one of the tools")
        }
        self = .named(name)
    }

    /// Whether it names a function.
    var names: Bool { if case .named = self { true } else { false } }

    var demandsCall: Bool {
        switch self {
        case .required, .named: true
        case .auto, .none: false
        }
    }

    /// The tools that the template shows.
    func shown(of tools: [ToolDefinition]) -> [ToolDefinition] {
        switch self {
        case .none: []
        case .named(let name): tools.filter { $0.name == name }
        case .auto, .required: tools
        }
    }
}
