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
            let (part, window, _) = try range("count", text, arguments, interpreter)
            guard let window else { return .int(0) }
            guard !part.isEmpty else { return .int(PythonText.length(window) + 1) }
            return .int(PythonText.occurrences(of: Array(part.utf8), in: Array(window.utf8)).count)
        },
        "join": { interpreter, text, arguments in
            let values = try arguments.bound(to: "join", ["values"], required: 1)
            let parts = try interpreter.elements(of: values[0] ?? .null).map { try string("join", $0) }
            try interpreter.charge(text: parts.reduce(0) { $0 + $1.utf8.count + text.utf8.count })
            return .string(parts.joined(separator: text))
        },
        "upper": changing("upper", PythonText.upper),
        "lower": changing("lower", PythonText.lower),
        "casefold": changing("casefold", PythonText.caseFold),
        "title": changing("title", PythonText.title),
        "capitalize": changing("capitalize", PythonText.capitalize),
        "swapcase": changing("swapcase", PythonText.swapCase),
        "format": { interpreter, text, arguments in .string(try JinjaFormat.braces(text, arguments, interpreter)) },
        "format_map": { interpreter, text, arguments in
            guard case .object(let object) = try arguments.bound(to: "format_map", ["mapping"], required: 1)[0] else {
                throw JinjaError(.type(expected: "a mapping for format_map()", found: "another value"))
            }
            let named = zip(object.keys, object.values).compactMap { key, value in
                if case .string(let name) = key { (key: name, value: value) } else { nil }
            }
            return .string(try JinjaFormat.braces(text, JinjaArguments(named: named), interpreter))
        },
        "expandtabs": { interpreter, text, arguments in
            let size = try arguments.bound(to: "expandtabs", ["tabsize"])[0]?.integer ?? 8
            try interpreter.charge(text: text.utf8.count + text.utf8.count { $0 == 9 } * max(0, min(size, 1 << 20)))
            return try interpreter.string(PythonText.expandTabs(text, max(0, min(size, 1 << 20))))
        },
        "translate": translated,
        "isascii": { _, text, _ in .bool(text.utf8.allSatisfy { $0 < 0x80 }) },
        "isprintable": { _, text, _ in .bool(text.unicodeScalars.allSatisfy { $0 == " " || PythonNumber.isPrintable($0) }) },
        "isidentifier": { _, text, _ in .bool(PythonText.isIdentifier(text)) },
        "istitle": { _, text, _ in .bool(PythonText.isTitle(text)) },
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
        // As in CPython, if the sides cannot be equal, the left one is longer for odd widths.
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

    /// The text to look for, the part of `text` that the arguments `start` and `end` name, and where that part starts.
    /// There is no such part where `start` lies beyond the end.
    private static func range(
        _ name: String, _ text: String, _ arguments: JinjaArguments, _ interpreter: JinjaInterpreter
    ) throws -> (part: String, window: String?, start: Int) {
        let values = try arguments.bound(to: name, ["text", "start", "end"], required: 1)
        let part = try string(name, values[0])
        let (window, start) = try window(of: text, values[1], values[2], interpreter)
        return (part, window, start)
    }

    private static func window(
        of text: String, _ start: JinjaValue?, _ end: JinjaValue?, _ interpreter: JinjaInterpreter
    ) throws -> (window: String?, start: Int) {
        try interpreter.charge(4 * text.utf8.count)
        guard start != nil || end != nil else { return (text, 0) }
        let scalars = Array(text.unicodeScalars)
        func place(_ value: JinjaValue?, _ otherwise: Int) throws -> Int {
            guard let value, !value.isNull else { return otherwise }
            guard let index = value.wholeNumber else {
                throw JinjaError(.type(expected: "integers as positions", found: value.typeName))
            }
            // Positions beyond 64 bits lie beyond every text.
            let place = index.int ?? (index.isNegative ? -scalars.count : scalars.count + 1)
            return place < 0 ? max(0, place &+ scalars.count) : place
        }
        let (first, last) = (try place(start, 0), min(try place(end, scalars.count), scalars.count))
        guard first <= last else { return (nil, first) }
        return (PythonText.text(scalars[first..<last]), first)
    }

    /// One prefix or suffix, or a tuple of them.
    private static func affix(_ name: String, _ matches: @escaping @Sendable (String, String) -> Bool) -> Method<String> {
        { interpreter, text, arguments in
            let values = try arguments.bound(to: name, ["text", "start", "end"], required: 1)
            let choices: [JinjaValue]
            if case .tuple(let several)? = values[0] { choices = several.elements } else { choices = [values[0] ?? .null] }
            let texts = try choices.map { try string(name, $0) }
            guard let window = try window(of: text, values[1], values[2], interpreter).window else { return .bool(false) }
            return .bool(texts.contains { matches(window, $0) })
        }
    }

    private static func searching(_ name: String, last: Bool, isRequired: Bool = false) -> Method<String> {
        { interpreter, text, arguments in
            let (part, window, start) = try range(name, text, arguments, interpreter)
            guard let window, let place = PythonText.find(part, in: window, last: last) else {
                guard isRequired else { return .int(-1) }
                throw JinjaError(.arguments(function: name, problem: "the text is not found"))
            }
            return .int(place + start)
        }
    }

    /// `str.translate` with a dictionary from code points to code points, texts or none.
    private static let translated: Method<String> = { interpreter, text, arguments in
        guard case .object(let table) = try arguments.bound(to: "translate", ["table"], required: 1)[0] else {
            throw JinjaError(.type(expected: "a dictionary for translate()", found: "another value"))
        }
        var result = ""
        for scalar in text.unicodeScalars {
            switch try table.value(under: .int(Int(scalar.value))) {
            case nil: result.unicodeScalars.append(scalar)
            case .null?: break
            case .string(let replacement)?: result += replacement
            case let code?: result += try JinjaFormat.character(code)
            }
            try interpreter.charge(text: result.utf8.count)
        }
        return .string(result)
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
