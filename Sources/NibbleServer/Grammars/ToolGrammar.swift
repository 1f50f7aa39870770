import NibbleCore
import NibbleGrammar

extension ToolFormat {
    /// The texts of one or more calls, as the model's template writes them.
    func calls(_ tools: [ToolDefinition], isSingle: Bool) -> GrammarPiece {
        func sequence(_ call: [GrammarPiece], between separator: String) -> GrammarPiece {
            isSingle ? .either(call) : .list(.either(call), separator: separator)
        }
        switch writing {
        case .tagged:
            let calls = tools.map { tool in
                GrammarPiece.sequence([.text("<tool_call>\n"), object(tool, "arguments"), .text("\n</tool_call>")])
            }
            return sequence(calls, between: "\n")
        case .array(let mark):
            let objects = sequence(tools.map { object($0, "arguments") }, between: ", ")
            return .sequence([.either([.text("\(mark)["), .text("\(mark) [")]), objects, .text("]")])
        case .nameFirst(let mark):
            let calls = tools.map { tool in
                GrammarPiece.sequence([.text("\(mark)\(tool.name)[ARGS]"), arguments(tool)])
            }
            return sequence(calls, between: "")
        case .bareObject: return .either(tools.map { object($0, "parameters") })
        }
    }

    /// Text that may end in calls: once it comes to the mark of one, a call follows.
    ///
    /// - Parameter content: what answers without a call must look like; `nil`: any text.
    func textOrCalls(_ tools: [ToolDefinition], isSingle: Bool, content: GrammarPiece?) -> GrammarPiece {
        let calls = calls(tools, isSingle: isSingle)
        if let content { return .either([content, calls]) }
        let text = GrammarPiece.textWithout(openings, start: allowsBareObject ? "{" : nil)
        return allowsBareObject ? .either([text, calls]) : .sequence([text, .either([.text(""), calls])])
    }

    private func object(_ tool: ToolDefinition, _ key: String) -> GrammarPiece {
        let name = JSONValue.string(tool.name).encoded()
        return .sequence([.text("{\"name\": \(name), \"\(key)\": "), arguments(tool), .text("}")])
    }

    /// Arguments of tools that are not strict follow their schema as far as it can be enforced.
    private func arguments(_ tool: ToolDefinition) -> GrammarPiece {
        var options = SchemaOptions()
        options.isLenient = !tool.isStrict
        return .value(schema: GrammarPiece.SchemaText(tool.parameters), options, orAnyObject: !tool.isStrict)
    }
}

extension ChatRequest {
    /// What the answer must look like; `nil`: any text.
    ///
    /// - Parameter shown: the tools that the template shows.
    func outputForm(_ shown: [ToolDefinition], _ format: ToolFormat) -> OutputForm? {
        guard !shown.isEmpty else { return form }
        let isSingle = !allowsParallelCalls || toolChoice.names
        if toolChoice.demandsCall {
            return OutputForm(field: "tools", source: .piece(format.calls(shown, isSingle: isSingle)))
        }
        guard let form else {
            guard shown.contains(where: \.isStrict) else { return nil }
            let piece = format.textOrCalls(shown, isSingle: isSingle, content: nil)
            return OutputForm(field: "tools", source: .piece(piece))
        }
        guard case .piece(let content) = form.source else { return form }
        let piece = format.textOrCalls(shown, isSingle: isSingle, content: content)
        return OutputForm(field: form.field, source: .piece(piece))
    }
}
