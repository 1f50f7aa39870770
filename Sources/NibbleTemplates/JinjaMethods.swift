/// The methods of strings, lists, tuples and dictionaries. Calling a method that would change its receiver is refused.
enum JinjaMethods {
    typealias Method<Receiver> = @Sendable (JinjaInterpreter, Receiver, JinjaArguments) throws -> JinjaValue

    static func method(_ name: String, of value: JinjaValue) -> JinjaValue? {
        switch value {
        case .string(let text): bound(name, strings[name], to: text, value)
        case .array(let items):
            listChanges.contains(name) ? refused(name, value) : bound(name, sequences[name], to: items, value)
        case .tuple(let items):
            if let place = items.names.firstIndex(of: name) {
                items[place]
            } else if name == "copy" {
                nil
            } else {
                bound(name, sequences[name], to: items, value)
            }
        case .object(let object):
            dictionaryChanges.contains(name) ? refused(name, value) : bound(name, dictionaries[name], to: object, value)
        case .bool, .int, .bigInteger, .double: JinjaMethods.number(name, value)
        default: nil
        }
    }

    private static let listChanges: Set<String> = ["append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"]
    private static let dictionaryChanges: Set<String> = ["clear", "pop", "popitem", "setdefault", "update"]

    private static func bound<Receiver: Sendable>(
        _ name: String, _ method: Method<Receiver>?, to receiver: Receiver, _ value: JinjaValue
    ) -> JinjaValue? {
        method.map { method in
            .opaque(
                JinjaOpaque(
                    .function("\(value.typeName).\(name)") { interpreter, arguments in
                        try interpreter.charge(scanning: value)
                        return try method(interpreter, receiver, arguments)
                    }, depth: value.depth))
        }
    }

    private static func refused(_ name: String, _ value: JinjaValue) -> JinjaValue {
        .undefined(.forbidden("changing a \(value.typeName) object with '\(name)'"))
    }

    // MARK: Dictionaries and lists

    private static let dictionaries: [String: Method<JinjaObject>] = [
        "items": { interpreter, object, _ in try view("items", object.items, interpreter) },
        "keys": { interpreter, object, _ in try view("keys", object.keys, interpreter) },
        "values": { interpreter, object, _ in try view("values", object.values, interpreter) },
        "copy": { _, object, _ in .object(object) },
        "get": { interpreter, object, arguments in
            let values = try arguments.bound(to: "get", ["key", "default"], required: 1)
            try interpreter.charge(key: values[0] ?? .null)
            return try object.value(under: values[0] ?? .null) ?? values[1] ?? .null
        },
    ]

    private static func view(_ kind: String, _ items: [JinjaValue], _ interpreter: JinjaInterpreter) throws -> JinjaValue {
        try interpreter.charge(16 * items.count)
        return try interpreter.checkDepth(.opaque(JinjaOpaque(.view(kind, items), depth: JinjaArray(items).depth)))
    }

    private static let sequences: [String: Method<JinjaArray>] = [
        "copy": { _, items, _ in .array(items) },
        "count": { interpreter, items, arguments in
            let values = try arguments.bound(to: "count", ["value"], required: 1)
            return .int(try items.count { try JinjaOperators.equal($0, values[0] ?? .null, interpreter) })
        },
        "index": { interpreter, items, arguments in
            let values = try arguments.bound(to: "index", ["value", "start", "end"], required: 1)
            func place(_ value: JinjaValue?, _ otherwise: Int) -> Int {
                guard let index = value?.integer else { return otherwise }
                return min(items.count, index < 0 ? max(0, index &+ items.count) : index)
            }
            let (start, end) = (place(values[1], 0), place(values[2], items.count))
            let searched = start < end ? start..<end : 0..<0
            guard let found = try searched.first(where: { try JinjaOperators.equal(items[$0], values[0] ?? .null, interpreter) })
            else {
                throw JinjaError(.arguments(function: "index", problem: "the value is not in the list"))
            }
            return .int(found)
        },
    ]
}
