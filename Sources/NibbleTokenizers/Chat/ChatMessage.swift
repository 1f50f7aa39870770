public import NibbleTemplates

/// One message of a chat.
public struct ChatMessage: Sendable, Equatable {
    /// `system`, `user`, `assistant`, `tool` or another role that the template supports.
    public var role: String
    /// Text, or a list of content parts (`[{"type": "text", "text": …}]`), or `.null`.
    public var content: JinjaValue
    /// Further fields by the names that templates use: `tool_calls`, `name`, `reasoning_content` …
    public var fields: JinjaObject

    /// A message of text.
    public init(role: String, content: String, fields: JinjaObject = JinjaObject()) {
        self.init(role: role, content: .string(content), fields: fields)
    }

    /// A message whose content is a list of parts, or nothing.
    public init(role: String, content: JinjaValue, fields: JinjaObject = JinjaObject()) {
        self.role = role
        self.content = content
        self.fields = fields
    }

    /// The dictionary that templates see: role, content, then the other fields in their order.
    package var value: JinjaValue {
        var object = JinjaObject([("role", .string(role)), ("content", content)])
        for (key, value) in zip(fields.keys, fields.values) {
            if case .string(let name) = key { object[name] = value }
        }
        return .object(object)
    }
}
