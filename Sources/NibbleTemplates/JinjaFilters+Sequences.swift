extension JinjaFilters {
    static let sequences: [String: Filter] = [
        "list": { interpreter, value, _ in try interpreter.list(try interpreter.elements(of: value)) },
        "first": { interpreter, value, _ in try first(of: value, interpreter) },
        "last": { interpreter, value, _ in
            try reversible(value, "last")
            return try interpreter.elements(of: value).last ?? .undefined("no last item, the sequence was empty")
        },
        "reverse": { interpreter, value, _ in
            if case .string(let text) = value { return try interpreter.string(PythonText.text(text.unicodeScalars.reversed())) }
            return try interpreter.iterator(try interpreter.elements(of: value).reversed())
        },
        "join": joined,
        "items": { interpreter, value, _ in
            if value.isUndefined { return try interpreter.iterator([]) }
            guard case .object(let object) = value else {
                throw JinjaError(.type(expected: "a dictionary for items", found: value.typeName))
            }
            return try interpreter.iterator(object.items)
        },
        "dictsort": { interpreter, value, arguments in
            let given = try arguments.bound(to: "dictsort", ["case_sensitive", "by", "reverse"])
            if case .undefined(let undefined) = value { throw undefined.error }
            guard case .object(let object) = value else {
                throw JinjaError(.type(expected: "a dictionary for dictsort", found: value.typeName))
            }
            let byValue = given[1] == .string("value")
            guard byValue || given[1] == nil || given[1] == .string("key") else {
                throw JinjaError(.arguments(function: "dictsort", problem: "by must be 'key' or 'value'"))
            }
            let keys = (byValue ? object.values : object.keys).map { caseFolded($0, unless: given[0]) }
            return try interpreter.list(
                try sorted(object.items, by: keys.map { [$0] }, descending: given[2]?.isTruthy ?? false, interpreter))
        },
        "sort": { interpreter, value, arguments in
            let given = try arguments.bound(to: "sort", ["reverse", "case_sensitive", "attribute"])
            let items = try interpreter.elements(of: value)
            var paths: [JinjaValue] = [given[2] ?? .null]
            if case .string(let names) = paths[0] {
                paths = PythonText.split(names, at: ",", maximum: -1, fromRight: false).map(JinjaValue.string)
            }
            let keys = try items.map { item in
                try paths.map { caseFolded(try lookUp($0, in: item, interpreter), unless: given[1]) }
            }
            return try interpreter.list(try sorted(items, by: keys, descending: given[0]?.isTruthy ?? false, interpreter))
        },
        "unique": { interpreter, value, arguments in
            let given = try arguments.bound(to: "unique", ["case_sensitive", "attribute"])
            var seen: Set<JinjaKey> = []
            let kept = try interpreter.elements(of: value).filter { item in
                let key = caseFolded(try lookUp(given[1] ?? .null, in: item, interpreter), unless: given[0])
                try interpreter.charge(key: key)
                return seen.insert(try JinjaKey(key)).inserted
            }
            return try interpreter.iterator(kept)
        },
        "min": extreme("min", descending: false),
        "max": extreme("max", descending: true),
        "sum": { interpreter, value, arguments in
            let given = try arguments.bound(to: "sum", ["attribute", "start"])
            return try interpreter.elements(of: value).reduce(given[1] ?? .int(0)) {
                try JinjaOperators.apply(.add, $0, try lookUp(given[0] ?? .null, in: $1, interpreter), interpreter)
            }
        },
        "slice": { interpreter, value, arguments in
            let given = try arguments.bound(to: "slice", ["slices", "fill_with"], required: 1)
            let items = try interpreter.elements(of: value)
            guard let count = given[0]?.integer, count != 0, count <= interpreter.limits.rangeLength else {
                throw JinjaError(.arguments(function: "slice", problem: "needs a number of slices, not zero"))
            }
            return try interpreter.iterator(try slices(of: items, max(count, 0), filling: given[1] ?? .null, interpreter))
        },
        "groupby": { interpreter, value, arguments in
            let given = try arguments.bound(to: "groupby", ["attribute", "default", "case_sensitive"], required: 1)
            return try grouped(
                try interpreter.elements(of: value), by: given[0] ?? .null, orElse: given[1] ?? .null,
                isSensitive: given[2], interpreter)
        },
        "random": { interpreter, value, _ in
            if case .undefined(let undefined) = value { throw undefined.error }
            return try interpreter.elements(of: value).randomElement() ?? .undefined("no random item, the sequence was empty")
        },
        "batch": { interpreter, value, arguments in
            let given = try arguments.bound(to: "batch", ["linecount", "fill_with"], required: 1)
            let items = try interpreter.elements(of: value)
            guard let size = given[0]?.integer, size <= interpreter.limits.rangeLength else {
                throw JinjaError(.arguments(function: "batch", problem: "the size must be an integer"))
            }
            // Follows jinja2's loop: a size of 0 gives an empty row and then one row of all items; a negative size gives only the latter.
            var rows: [[JinjaValue]] = []
            for item in items {
                if rows.isEmpty || rows[rows.count - 1].count == size {
                    rows += size == 0 && rows.isEmpty ? [[], []] : [[]]
                }
                rows[rows.count - 1].append(item)
            }
            if let filling = given[1], !filling.isNull, let last = rows.last, last.count < size {
                rows[rows.count - 1] += Array(repeating: filling, count: size - last.count)
            }
            return try interpreter.iterator(try rows.map { try interpreter.list($0) })
        },
    ]

    // MARK: Helpers

    /// `count` lists of nearly equal length. The first ones have one item more; `filling` is added to the others.
    private static func slices(
        of items: [JinjaValue], _ count: Int, filling: JinjaValue, _ interpreter: JinjaInterpreter
    ) throws -> [JinjaValue] {
        guard count > 0 else { return [] }
        let (size, extra) = items.count.quotientAndRemainder(dividingBy: count)
        return try (0..<count).map { index in
            let start = index * size + min(index, extra)
            var slice = Array(items[start..<(start + size + (index < extra ? 1 : 0))])
            if !filling.isNull, index >= extra { slice.append(filling) }
            return try interpreter.list(slice)
        }
    }

    /// Tuples `(grouper, list)` in the order of the values at `path`.
    private static func grouped(
        _ items: [JinjaValue], by path: JinjaValue, orElse fallback: JinjaValue, isSensitive: JinjaValue?,
        _ interpreter: JinjaInterpreter
    ) throws -> JinjaValue {
        let values = try items.map { try lookUp(path, in: $0, orElse: fallback, interpreter) }
        // Undefined values have no order.
        if values.count > 1, case .undefined(let undefined)? = values.first(where: \.isUndefined) { throw undefined.error }
        let keys = values.map { caseFolded($0, unless: isSensitive) }
        let order = try sorted(items.indices.map(JinjaValue.int), by: keys.map { [$0] }, descending: false, interpreter)
        var groups: [(key: JinjaValue, name: JinjaValue, items: [JinjaValue])] = []
        for index in order.compactMap(\.integer) {
            if let last = groups.last, try JinjaOperators.equal(last.key, keys[index], interpreter) {
                groups[groups.count - 1].items.append(items[index])
            } else {
                groups.append((keys[index], values[index], [items[index]]))
            }
        }
        return try interpreter.list(
            try groups.map { group in
                .tuple(JinjaArray([group.name, try interpreter.list(group.items)], names: ["grouper", "list"]))
            })
    }

    private static func first(of value: JinjaValue, _ interpreter: JinjaInterpreter) throws -> JinjaValue {
        // Taking one item of an iterator leaves the others.
        if case .opaque(let opaque) = value, case .iterator(let items) = opaque.payload, opaque.position < items.count {
            defer { opaque.position += 1 }
            return items[opaque.position]
        }
        return try interpreter.elements(of: value).first ?? .undefined("no first item, the sequence was empty")
    }

    private static func reversible(_ value: JinjaValue, _ name: String) throws {
        if case .opaque(let opaque) = value, case .iterator = opaque.payload {
            throw JinjaError(.type(expected: "a sequence for '\(name)'", found: "a generator; use '|list' first"))
        }
    }

    private static let joined: Filter = { interpreter, value, arguments in
        let given = try arguments.bound(to: "join", ["d", "attribute"])
        let separator = try given[0].map { try interpreter.text(of: $0) } ?? ""
        let parts = try interpreter.elements(of: value).map {
            try interpreter.text(of: try lookUp(given[1] ?? .null, in: $0, interpreter))
        }
        try interpreter.charge(text: parts.reduce(0) { $0 + $1.utf8.count + separator.utf8.count })
        return .string(parts.joined(separator: separator))
    }

    /// The value at a dotted path (`function.name`, `items.0`); the item itself for no path.
    static func lookUp(
        _ path: JinjaValue, in item: JinjaValue, orElse fallback: JinjaValue = .null, _ interpreter: JinjaInterpreter
    ) throws -> JinjaValue {
        guard !path.isNull else { return item }
        guard case .string(let text) = path else { return try interpreter.element(path, of: item) }
        var value = item
        for part in PythonText.split(text, at: ".", maximum: -1, fromRight: false) {
            let isIndex = !part.isEmpty && part.utf8.allSatisfy { (48...57).contains($0) }
            value = try interpreter.element(isIndex ? Int(part).map(JinjaValue.int) ?? .string(part) : .string(part), of: value)
            if value.isUndefined, !fallback.isNull { value = fallback }
        }
        return value
    }

    private static func caseFolded(_ value: JinjaValue, unless isSensitive: JinjaValue?) -> JinjaValue {
        guard case .string(let text) = value, !(isSensitive?.isTruthy ?? false) else { return value }
        return .string(PythonText.lower(text))
    }

    /// A stable sort; descending order keeps equals in place too, as Python's does.
    private static func sorted(
        _ items: [JinjaValue], by keys: [[JinjaValue]], descending: Bool, _ interpreter: JinjaInterpreter
    ) throws -> [JinjaValue] {
        let order = try items.indices.sorted { a, b in
            try interpreter.charge(16)
            for (x, y) in zip(keys[a], keys[b]) where try !JinjaOperators.equal(x, y, interpreter) {
                return try descending ? JinjaOperators.precedes(y, x, interpreter) : JinjaOperators.precedes(x, y, interpreter)
            }
            return a < b
        }
        return order.map { items[$0] }
    }

    private static func extreme(_ name: String, descending: Bool) -> Filter {
        { interpreter, value, arguments in
            let given = try arguments.bound(to: name, ["case_sensitive", "attribute"])
            let items = try interpreter.elements(of: value)
            let keys = try items.map { [caseFolded(try lookUp(given[1] ?? .null, in: $0, interpreter), unless: given[0])] }
            return try sorted(items, by: keys, descending: descending, interpreter).first
                ?? .undefined("no item, the sequence was empty")
        }
    }
}
