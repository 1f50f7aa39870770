/// How a model writes calls of functions, as far as its chat template tells.
struct ToolFormat: Sendable, Equatable {
    /// What may stand before a call.
    var openings: [String]
    /// What may stand after one.
    var closings: [String]
    /// An answer that begins with an object may be a call.
    var allowsBareObject = false
    /// `name[ARGS]{…}` or `name{…}` may follow the opening.
    var allowsNameFirst = false
    var identifier = Identifier.long
    /// How the template itself writes calls.
    var writing = Writing.tagged

    enum Writing: Sendable, Equatable {
        /// Each call as an object between `<tool_call>` and `</tool_call>`.
        case tagged
        /// An array of objects after the mark.
        case array(mark: String)
        /// `name[ARGS]{…}` after the mark.
        case nameFirst(mark: String)
        /// One object, with `parameters`.
        case bareObject
    }

    enum Identifier: Sendable {
        /// `call_` and 24 letters or digits.
        case long
        /// 9 letters or digits, as Mistral's templates demand.
        case short
    }

    /// Qwen, Hermes, SmolLM, EXAONE and Granite 4.
    static let tagged = ToolFormat(openings: ["<tool_call>"], closings: ["</tool_call>"])
    static let granite = ToolFormat(
        openings: ["<|tool_call|>", "<tool_call>"], closings: ["</tool_call>"], writing: .array(mark: "<|tool_call|>"))
    static let mistral = ToolFormat(
        openings: ["[TOOL_CALLS]"], closings: [], allowsNameFirst: true, identifier: .short,
        writing: .array(mark: "[TOOL_CALLS]"))
    static let llama = ToolFormat(
        openings: ["<|python_tag|>"], closings: [";"], allowsBareObject: true, writing: .bareObject)

    /// The format that a chat template asks for.
    static func found(in template: String) -> ToolFormat {
        if template.contains("[TOOL_CALLS]") {
            var format = mistral
            if template.contains("[ARGS]") { format.writing = .nameFirst(mark: "[TOOL_CALLS]") }
            return format
        }
        if template.contains("<|tool_call|>") { return granite }
        if template.contains("<tool_call>") { return tagged }
        if template.contains("<|python_tag|>") || (template.contains("ipython") && template.contains("\"parameters\"")) {
            return llama
        }
        return tagged
    }

    /// A new id for a call.
    func newIdentifier() -> String {
        let letters = Array("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
        let count = identifier == .short ? 9 : 24
        let text = String((0..<count).map { _ in letters.randomElement() ?? "0" })
        return identifier == .short ? text : "call_" + text
    }
}
