import NibbleCore

extension JinjaInterpreter {
    /// `str(value)`: what printing a value gives.
    func text(of value: JinjaValue) throws -> String {
        switch value {
        case .string(let text): text
        case .undefined: ""
        default: try representation(of: value)
        }
    }

    /// `repr(value)`: strings in quotes, as inside printed lists and dictionaries.
    func representation(of value: JinjaValue) throws -> String {
        var result = ""
        try represent(value, into: &result)
        return result
    }

    private func represent(_ value: JinjaValue, into result: inout String) throws {
        try charge(16)
        switch value {
        case .undefined: result += "Undefined"
        case .null: result += "None"
        case .bool(let flag): result += flag ? "True" : "False"
        case .int(let number): result += String(number)
        case .bigInteger(let number): result += try number.decimalText()
        case .double(let number): result += PythonFloat.text(number)
        case .string(let text):
            try charge(16 * text.utf8.count)
            result += PythonNumber.quoted(text)
        case .array(let items): try represent(items, "[", "]", into: &result)
        case .tuple(let items): try represent(items, "(", items.count == 1 ? ",)" : ")", into: &result)
        case .object(let object): try represent(object, into: &result)
        case .opaque(let opaque): try represent(opaque, into: &result)
        }
        try charge(text: result.utf8.count > limits.outputBytes ? .max / 2 : 0)
    }

    private func represent(_ items: some Sequence<JinjaValue>, _ open: String, _ close: String, into result: inout String) throws
    {
        result += open
        for (index, item) in items.enumerated() {
            if index > 0 { result += ", " }
            try represent(item, into: &result)
        }
        result += close
    }

    private func represent(_ object: JinjaObject, into result: inout String) throws {
        result += "{"
        for (index, (key, value)) in zip(object.keys, object.values).enumerated() {
            if index > 0 { result += ", " }
            try represent(key, into: &result)
            result += ": "
            try represent(value, into: &result)
        }
        result += "}"
    }

    private func represent(_ opaque: JinjaOpaque, into result: inout String) throws {
        switch opaque.payload {
        // Namespaces can hold each other, so their attributes are not followed.
        case .namespace: result += "<Namespace {\(opaque.attributes.keys.count) attributes}>"
        case .function(let name, _): result += "<function \(name)>"
        case .macro(let macro): result += "<Macro '\(macro.definition.name)'>"
        case .loop(let loop): result += "<LoopContext \(loop.index0 + 1)>"
        case .cycler: result += "<Cycler>"
        case .joiner: result += "<Joiner>"
        case .iterator: result += "<generator>"
        case .view(let kind, let items): try represent(items, "dict_\(kind)([", "])", into: &result)
        case .range(let range):
            result += "range(\(range.start), \(range.stop)" + (range.step == 1 ? ")" : ", \(range.step))")
        }
    }
}
