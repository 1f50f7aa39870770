import Foundation

/// The global functions of templates.
enum JinjaFunctions {
    static let globals: [String: JinjaValue] = [
        "range": function("range", range),
        "dict": function("dict", dictionary),
        "cycler": function("cycler") { _, arguments in
            let items = arguments.positional
            guard !items.isEmpty, arguments.named.isEmpty else {
                throw JinjaError(.arguments(function: "cycler", problem: "needs at least one item"))
            }
            return .opaque(JinjaOpaque(.cycler(items), depth: JinjaArray(items).depth))
        },
        "joiner": function("joiner") { _, arguments in
            let separator = try arguments.bound(to: "joiner", ["sep"])[0] ?? .string(", ")
            return .opaque(JinjaOpaque(.joiner(separator), depth: separator.depth))
        },
        "namespace": function("namespace") { interpreter, arguments in interpreter.namespace(try merged(arguments, interpreter))
        },
        "raise_exception": function("raise_exception") { interpreter, arguments in
            let values = try arguments.bound(to: "raise_exception", ["message"], required: 1)
            throw JinjaError(.raised(try interpreter.text(of: values[0] ?? .null)))
        },
        "strftime_now": function("strftime_now") { interpreter, arguments in
            let values = try arguments.bound(to: "strftime_now", ["format"], required: 1)
            guard case .string(let format)? = values[0] else {
                throw JinjaError(.type(expected: "a format for strftime_now", found: values[0]?.typeName ?? "nothing"))
            }
            return try interpreter.string(formatted(interpreter.now, format))
        },
    ]

    private static func function(_ name: String, _ body: @escaping JinjaOpaque.Body) -> JinjaValue {
        .opaque(JinjaOpaque(.function(name, body)))
    }

    private static func range(_ interpreter: JinjaInterpreter, _ arguments: JinjaArguments) throws -> JinjaValue {
        let numbers = try arguments.positional.map { value -> Int in
            if case .undefined(let undefined) = value { throw undefined.error }
            guard let number = value.integer else {
                throw JinjaError(.type(expected: "integers for range()", found: value.typeName))
            }
            return number
        }
        guard (1...3).contains(numbers.count), arguments.named.isEmpty else {
            throw JinjaError(.arguments(function: "range", problem: "takes one to three positional arguments"))
        }
        let start = numbers.count == 1 ? 0 : numbers[0]
        let stop = numbers.count == 1 ? numbers[0] : numbers[1]
        let step = numbers.count == 3 ? numbers[2] : 1
        guard step != 0 else { throw JinjaError(.arguments(function: "range", problem: "the step must not be zero")) }
        guard step > 0 ? start < stop : start > stop else {
            return .opaque(JinjaOpaque(.range(JinjaRange(start: start, step: step, count: 0))))
        }
        // The distance of two Ints fits UInt.
        let distance = step > 0 ? UInt(bitPattern: stop &- start) : UInt(bitPattern: start &- stop)
        let count = (distance - 1) / step.magnitude
        guard count < UInt(max(interpreter.limits.rangeLength, 0)) else {
            throw JinjaError(.limit("elements of a range", maximum: interpreter.limits.rangeLength))
        }
        return .opaque(JinjaOpaque(.range(JinjaRange(start: start, step: step, count: Int(count) + 1))))
    }

    private static func dictionary(_ interpreter: JinjaInterpreter, _ arguments: JinjaArguments) throws -> JinjaValue {
        try interpreter.object(try merged(arguments, interpreter))
    }

    /// The dictionary that `dict(…)` makes of a dictionary or of pairs, and of named arguments.
    private static func merged(_ arguments: JinjaArguments, _ interpreter: JinjaInterpreter) throws -> JinjaObject {
        guard arguments.positional.count <= 1 else {
            throw JinjaError(.arguments(function: "dict", problem: "takes at most one positional argument"))
        }
        var result = JinjaObject()
        if case .object(let object)? = arguments.positional.first {
            result = object
        } else if let pairs = arguments.positional.first {
            for pair in try interpreter.elements(of: pairs) {
                let parts = try interpreter.elements(of: pair)
                if let key = parts.first { try interpreter.charge(key: key) }
                guard parts.count == 2 else {
                    throw JinjaError(.type(expected: "pairs for dict()", found: "\(parts.count) values"))
                }
                try result.set(parts[0], to: parts[1])
            }
        }
        for (key, value) in arguments.named { result[key] = value }
        try interpreter.charge(64 * result.count)
        return result
    }

    /// `datetime.strftime` of local time, with Python's `%f`. `%z` and `%Z` are empty, because the time is naive.
    private static func formatted(_ date: Date, _ format: String) -> String {
        let microseconds = Int((date.timeIntervalSince1970 - date.timeIntervalSince1970.rounded(.down)) * 1_000_000)
        var prepared = ""
        var isEscape = false
        for scalar in format.unicodeScalars {
            if isEscape, scalar == "f" || scalar == "z" || scalar == "Z" {
                prepared.unicodeScalars.removeLast()
                if scalar == "f" { prepared += String(String(1_000_000 + microseconds).dropFirst()) }
                isEscape = false
                continue
            }
            prepared.unicodeScalars.append(scalar)
            isEscape = scalar == "%" && !isEscape
        }
        guard var time = time_t(exactly: date.timeIntervalSince1970.rounded(.down)) else { return "" }
        var parts = tm()
        localtime_r(&time, &parts)
        var buffer = [UInt8](repeating: 0, count: 256 + 64 * prepared.utf8.count)
        let length = buffer.withUnsafeMutableBytes { bytes in
            strftime(bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count, prepared, &parts)
        }
        return String(decoding: buffer[..<length], as: UTF8.self)
    }
}
