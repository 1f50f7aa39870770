extension JinjaFilters {
    static let strings: [String: Filter] = [
        "string": { interpreter, value, _ in try interpreter.string(try interpreter.text(of: value)) },
        // Nothing is escaped in chat templates, so a safe string is a string.
        "safe": { interpreter, value, _ in try interpreter.string(try interpreter.text(of: value)) },
        "upper": changing(PythonText.upper),
        "lower": changing(PythonText.lower),
        "title": changing(PythonText.filterTitle),
        "capitalize": changing(PythonText.capitalize),
        "trim": { interpreter, value, arguments in
            let given = try arguments.bound(to: "trim", ["chars"])
            var characters: String?
            if case .string(let text)? = given[0] { characters = text }
            let text = try interpreter.text(of: value)
            if characters != nil { try interpreter.charge(8 * text.utf8.count) }
            return try interpreter.string(PythonText.strip(text, characters))
        },
        "replace": { interpreter, value, arguments in
            let given = try arguments.bound(to: "replace", ["old", "new", "count"], required: 2)
            let texts = try [value, given[0] ?? .null, given[1] ?? .null].map { try interpreter.text(of: $0) }
            try interpreter.charge(texts[0].utf8.count)
            let count = given[2]?.integer ?? -1
            return .string(
                try PythonText.replace(texts[0], texts[1], texts[2], count: count) { try interpreter.charge(text: $0) })
        },
        "indent": indented,
        "center": { interpreter, value, arguments in
            let given = try arguments.bound(to: "center", ["width"])
            let center = try interpreter.attribute("center", of: .string(try interpreter.text(of: value)))
            return try interpreter.call(center, JinjaArguments(positional: [given[0] ?? .int(80)]))
        },
        "truncate": truncated,
        "wordwrap": wrapped,
        "wordcount": { interpreter, value, _ in
            let scalars = try interpreter.text(of: value).unicodeScalars
            try interpreter.charge(4 * scalars.count)
            let words = scalars.split { !($0 == "_" || $0.properties.isAlphabetic || $0.properties.numericType != nil) }
            return .int(words.count)
        },
        "format": { interpreter, value, arguments in
            let values: JinjaValue =
                arguments.named.isEmpty ? try interpreter.tuple(arguments.positional) : .object(JinjaObject(arguments.named))
            return try interpreter.string(try JinjaFormat.percent(try interpreter.text(of: value), values, interpreter))
        },
    ]

    private static func changing(_ change: @escaping @Sendable (String) -> String) -> Filter {
        { interpreter, value, _ in
            let text = try interpreter.text(of: value)
            try interpreter.charge(8 * text.utf8.count)
            return try interpreter.string(change(text))
        }
    }

    private static let indented: Filter = { interpreter, value, arguments in
        let given = try arguments.bound(to: "indent", ["width", "first", "blank"])
        guard case .string(let text) = value else {
            if case .undefined(let undefined) = value { throw undefined.error }
            throw JinjaError(.type(expected: "a string to indent", found: value.typeName))
        }
        var indentation = ""
        if case .string(let custom)? = given[0] {
            indentation = custom
        } else {
            let width = max(0, given[0]?.integer ?? 4)
            try interpreter.charge(text: width)
            indentation = PythonText.repeated(" ", width)
        }
        let lines = PythonText.lines(text + "\n")
        try interpreter.charge(text: text.utf8.count + lines.count * indentation.utf8.count)
        let indentsBlank = given[2]?.isTruthy ?? false
        var result = (given[1]?.isTruthy ?? false) ? indentation : ""
        for (index, line) in lines.enumerated() {
            if index > 0 { result += "\n" + (line.isEmpty && !indentsBlank ? "" : indentation) }
            result += line
        }
        return try interpreter.string(result)
    }

    private static let truncated: Filter = { interpreter, value, arguments in
        let given = try arguments.bound(to: "truncate", ["length", "killwords", "end", "leeway"])
        let end = try given[2].map { try interpreter.text(of: $0) } ?? "..."
        let length = given[0]?.integer ?? 255
        guard length >= PythonText.length(end) else {
            throw JinjaError(.arguments(function: "truncate", problem: "the length is below that of the end mark"))
        }
        guard try interpreter.length(of: value) > length &+ max(0, given[3]?.integer ?? 5) else { return value }
        guard case .string(let string) = value else {
            throw JinjaError(.type(expected: "a string to truncate", found: value.typeName))
        }
        let text = Array(string.unicodeScalars)
        var kept = text[..<(length - PythonText.length(end))]
        if !(given[1]?.isTruthy ?? false), let space = kept.lastIndex(of: " ") { kept = kept[..<space] }
        return try interpreter.string(PythonText.text(kept) + end)
    }
}
