extension JinjaMethods {
    static let strings: [String: Method<String>] = [
        "strip": stripping("strip", .both),
        "lstrip": stripping("lstrip", .leading),
        "rstrip": stripping("rstrip", .trailing),
        "split": splitting("split", fromRight: false),
        "rsplit": splitting("rsplit", fromRight: true),
        "splitlines": { interpreter, text, arguments in
            let values = try arguments.bound(to: "splitlines", ["keepends"])
            try interpreter.charge(4 * text.utf8.count)
            return try interpreter.list(PythonText.lines(text, keepEnds: values[0]?.isTruthy ?? false).map(JinjaValue.string))
        },
        "partition": partitioning("partition", last: false),
        "rpartition": partitioning("rpartition", last: true),
        "startswith": affix("startswith", PythonText.hasPrefix),
        "endswith": affix("endswith", PythonText.hasSuffix),
        "removeprefix": { _, text, arguments in
            let prefix = try string("removeprefix", arguments)
            return .string(
                PythonText.hasPrefix(text, prefix)
                    ? PythonText.text(text.unicodeScalars.dropFirst(PythonText.length(prefix))) : text)
        },
        "removesuffix": { _, text, arguments in
            let suffix = try string("removesuffix", arguments)
            return .string(
                PythonText.hasSuffix(text, suffix)
                    ? PythonText.text(text.unicodeScalars.dropLast(PythonText.length(suffix))) : text)
        },
        "replace": { interpreter, text, arguments in
            let values = try arguments.bound(to: "replace", ["old", "new", "count"], required: 2)
            let (old, new) = (try string("replace", values[0]), try string("replace", values[1]))
            try interpreter.charge(text.utf8.count)
            return .string(
                try PythonText.replace(text, old, new, count: values[2]?.integer ?? -1) { try interpreter.charge(text: $0) })
        },
        "find": searching("find", last: false),
        "rfind": searching("rfind", last: true),
        "index": searching("index", last: false, isRequired: true),
        "rindex": searching("rindex", last: true, isRequired: true),
        "count": { interpreter, text, arguments in
            let part = try string("count", arguments)
            try interpreter.charge(text.utf8.count)
            guard !part.isEmpty else { return .int(PythonText.length(text) + 1) }
            return .int(PythonText.occurrences(of: Array(part.utf8), in: Array(text.utf8)).count)
        },
        "join": { interpreter, text, arguments in
            let values = try arguments.bound(to: "join", ["values"], required: 1)
            let parts = try interpreter.elements(of: values[0] ?? .null).map { try string("join", $0) }
            try interpreter.charge(text: parts.reduce(0) { $0 + $1.utf8.count + text.utf8.count })
            return .string(parts.joined(separator: text))
        },
        "upper": changing("upper", PythonText.upper),
        "lower": changing("lower", PythonText.lower),
        "casefold": changing("casefold", PythonText.lower),
        "title": changing("title", PythonText.title),
        "capitalize": changing("capitalize", PythonText.capitalize),
        "swapcase": changing("swapcase", PythonText.swapCase),
        "format": { interpreter, text, arguments in .string(try JinjaFormat.braces(text, arguments, interpreter)) },
        "isupper": uniform(upper: true),
        "islower": uniform(upper: false),
        "isspace": every(PythonText.isSpace),
        "isdigit": every { $0.properties.numericType == .decimal || $0.properties.numericType == .digit },
        "isdecimal": every { $0.properties.numericType == .decimal },
        "isnumeric": every { $0.properties.numericType != nil },
        "isalpha": every(isLetter),
        "isalnum": every { isLetter($0) || $0.properties.numericType != nil },
        "ljust": padding("ljust") { _, _ in 0 },
        "rjust": padding("rjust") { missing, _ in missing },
        // Where the sides cannot be equal, the left one is the longer for odd widths.
        "center": padding("center") { missing, width in missing / 2 + (missing & width & 1) },
        "zfill": { interpreter, text, arguments in
            let values = try arguments.bound(to: "zfill", ["width"], required: 1)
            let missing = max(0, (values[0]?.integer ?? 0) - PythonText.length(text))
            try interpreter.charge(text: text.utf8.count + missing)
            let sign = text.hasPrefix("-") || text.hasPrefix("+") ? text.prefix(1) : ""
            return .string(sign + PythonText.repeated("0", missing) + text.dropFirst(sign.count))
        },
    ]

    // MARK: Arguments

    private static func string(_ function: String, _ value: JinjaValue?) throws -> String {
        if case .string(let text)? = value { return text }
        if case .undefined(let undefined)? = value { throw undefined.error }
        throw JinjaError(.type(expected: "a string for \(function)()", found: value?.typeName ?? "nothing"))
    }

    private static func string(_ function: String, _ arguments: JinjaArguments) throws -> String {
        try string(function, try arguments.bound(to: function, ["text"], required: 1)[0])
    }

    /// A string, or nil for `None` or nothing.
    private static func optional(_ function: String, _ value: JinjaValue?) throws -> String? {
        guard let value, !value.isNull else { return nil }
        return try string(function, value)
    }

    // MARK: Families of methods

    private static func stripping(_ name: String, _ side: PythonText.Side) -> Method<String> {
        { interpreter, text, arguments in
            let characters = try optional(name, try arguments.bound(to: name, ["chars"])[0])
            if characters != nil { try interpreter.charge(8 * text.utf8.count) }
            return try interpreter.string(PythonText.strip(text, characters, side))
        }
    }

    private static func splitting(_ name: String, fromRight: Bool) -> Method<String> {
        { interpreter, text, arguments in
            let values = try arguments.bound(to: name, ["sep", "maxsplit"])
            let separator = try optional(name, values[0])
            let maximum = values[1]?.integer ?? -1
            try interpreter.charge(2 * text.utf8.count)
            guard let separator else {
                return try interpreter.list(
                    PythonText.splitAtSpaces(text, maximum: maximum, fromRight: fromRight).map(JinjaValue.string))
            }
            guard !separator.isEmpty else { throw JinjaError(.arguments(function: name, problem: "empty separator")) }
            return try interpreter.list(
                PythonText.split(text, at: separator, maximum: maximum, fromRight: fromRight).map(JinjaValue.string))
        }
    }

    private static func partitioning(_ name: String, last: Bool) -> Method<String> {
        { interpreter, text, arguments in
            let separator = try string(name, arguments)
            guard !separator.isEmpty else { throw JinjaError(.arguments(function: name, problem: "empty separator")) }
            let parts = PythonText.split(text, at: separator, maximum: 1, fromRight: last)
            let all = parts.count == 2 ? [parts[0], separator, parts[1]] : last ? ["", "", text] : [text, "", ""]
            return try interpreter.tuple(all.map(JinjaValue.string))
        }
    }

    /// One prefix or suffix, or a tuple of them.
    private static func affix(_ name: String, _ matches: @escaping @Sendable (String, String) -> Bool) -> Method<String> {
        { _, text, arguments in
            let value = try arguments.bound(to: name, ["text"], required: 1)[0]
            guard case .tuple(let choices)? = value else { return .bool(matches(text, try string(name, value))) }
            return .bool(try choices.contains { matches(text, try string(name, $0)) })
        }
    }

    private static func searching(_ name: String, last: Bool, isRequired: Bool = false) -> Method<String> {
        { interpreter, text, arguments in
            let values = try arguments.bound(to: name, ["text", "start", "end"], required: 1)
            let part = try string(name, values[0])
            try interpreter.charge(4 * text.utf8.count)
            let window = try interpreter.slice(.string(text), [values[1] ?? .null, values[2] ?? .null, .null])
            guard case .string(let searched) = window, let place = PythonText.find(part, in: searched, last: last) else {
                guard isRequired else { return .int(-1) }
                throw JinjaError(.arguments(function: name, problem: "the text is not found"))
            }
            let length = PythonText.length(text)
            let start = values[1]?.integer ?? 0
            return .int(place + (start < 0 ? max(0, start &+ length) : start))
        }
    }

    private static func changing(_ name: String, _ change: @escaping @Sendable (String) -> String) -> Method<String> {
        { interpreter, text, arguments in
            _ = try arguments.bound(to: name, [])
            try interpreter.charge(8 * text.utf8.count)
            return try interpreter.string(change(text))
        }
    }

    private static func every(_ holds: @escaping @Sendable (Unicode.Scalar) -> Bool) -> Method<String> {
        { interpreter, text, _ in
            try interpreter.charge(4 * text.utf8.count)
            return .bool(!text.isEmpty && text.unicodeScalars.allSatisfy(holds))
        }
    }

    private static func uniform(upper: Bool) -> Method<String> {
        { interpreter, text, _ in
            try interpreter.charge(4 * text.utf8.count)
            return .bool(PythonText.isUniform(text, upper: upper))
        }
    }

    private static func isLetter(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: true
        default: false
        }
    }

    /// - Parameter left: how many of the missing characters go to the left, for a width.
    private static func padding(_ name: String, _ left: @escaping @Sendable (_ missing: Int, _ width: Int) -> Int) -> Method<
        String
    > {
        { interpreter, text, arguments in
            let values = try arguments.bound(to: name, ["width", "fillchar"], required: 1)
            let width = max(0, values[0]?.integer ?? 0)
            let missing = max(0, width - PythonText.length(text))
            let fill = try optional(name, values[1]) ?? " "
            try interpreter.charge(
                text: missing > interpreter.limits.outputBytes ? .max / 2 : text.utf8.count + missing * fill.utf8.count)
            let before = left(missing, width)
            return .string(PythonText.repeated(fill, before) + text + PythonText.repeated(fill, missing - before))
        }
    }
}
