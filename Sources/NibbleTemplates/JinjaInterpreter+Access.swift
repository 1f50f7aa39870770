extension JinjaInterpreter {
    /// The elements that iterating over a value gives. This consumes an iterator.
    func elements(of value: JinjaValue) throws -> [JinjaValue] {
        switch value {
        case .undefined: return []
        case .array(let items), .tuple(let items):
            try charge(16 * items.count)
            return items.elements
        case .object(let object):
            try charge(16 * object.count)
            return object.keys
        case .string(let text):
            try charge(16 * text.utf8.count)
            return text.unicodeScalars.map { .string(String($0)) }
        case .opaque(let opaque):
            switch opaque.payload {
            case .iterator(let items):
                defer { opaque.position = items.count }
                return Array(items[opaque.position...])
            case .view(_, let items):
                try charge(16 * items.count)
                return items
            case .range(let range):
                try charge(16 * range.count)
                return range.values.map(JinjaValue.int)
            case .loop(let loop):
                var rest: [JinjaValue] = []
                while let item = try loop.next() { rest.append(item) }
                return rest
            default: break
            }
        default: break
        }
        throw JinjaError(.type(expected: "something to iterate over", found: value.typeName))
    }

    /// `len()`.
    func length(of value: JinjaValue) throws -> Int {
        switch value {
        case .undefined: return 0
        case .array(let items), .tuple(let items): return items.count
        case .object(let object): return object.count
        case .string(let text):
            try charge(text.utf8.count)
            return PythonText.length(text)
        case .opaque(let opaque):
            if let count = opaque.count { return count }
        default: break
        }
        throw JinjaError(.type(expected: "something with a length", found: value.typeName))
    }

    // MARK: Attributes

    /// `value.name`: attributes of the type come first, then keys of the value.
    func attribute(_ name: String, of value: JinjaValue) throws -> JinjaValue {
        if case .undefined(let undefined) = value { throw undefined.error }
        if let own = try ownAttribute(name, of: value) { return own }
        if case .object(let object) = value, let held = object[name] { return held }
        return missing(name, of: value)
    }

    /// `value[key]`: keys of the value come first, then attributes of the type.
    func element(_ key: JinjaValue, of value: JinjaValue) throws -> JinjaValue {
        if case .undefined(let undefined) = value { throw undefined.error }
        try charge(key: key)
        if let held = try heldElement(key, of: value) { return held }
        guard case .string(let name) = key else {
            return .undefined("\(value.typeName) object has no element \(try representation(of: key))")
        }
        return try ownAttribute(name, of: value) ?? missing(name, of: value)
    }

    private func missing(_ name: String, of value: JinjaValue) -> JinjaValue {
        if name.hasPrefix("__"), name.hasSuffix("__") {
            return .undefined(.forbidden("access to the attribute '\(name)' of a \(value.typeName) object"))
        }
        return .undefined("'\(value.typeName) object' has no attribute '\(name)'")
    }

    private func heldElement(_ key: JinjaValue, of value: JinjaValue) throws -> JinjaValue? {
        switch value {
        case .object(let object):
            if case .string(let name) = key { return object[name] }
            // Looking up an unhashable key finds nothing.
            return try? object.value(under: key)
        case .array(let items), .tuple(let items):
            return key.integer.flatMap { position($0, in: items.count) }.map { items[$0] }
        case .string(let text):
            guard let index = key.integer else { return nil }
            try charge(text.utf8.count)
            let scalars = text.unicodeScalars
            return position(index, in: scalars.count).map {
                .string(String(scalars[scalars.index(scalars.startIndex, offsetBy: $0)]))
            }
        case .opaque(let opaque):
            guard case .range(let range) = opaque.payload else { return nil }
            return key.integer.flatMap { position($0, in: range.count) }.map { .int(range[$0]) }
        default: return nil
        }
    }

    /// Python's index: negative ones count from the end.
    private func position(_ index: Int, in count: Int) -> Int? {
        let place = index < 0 ? index &+ count : index
        return place >= 0 && place < count ? place : nil
    }

    private func ownAttribute(_ name: String, of value: JinjaValue) throws -> JinjaValue? {
        switch value {
        case .opaque(let opaque):
            switch opaque.payload {
            case .namespace: return opaque.attributes[name]
            case .loop(let loop): return try loopAttribute(name, of: loop)
            case .macro(let macro): return macroAttribute(name, of: macro)
            case .cycler(let items): return cyclerAttribute(name, of: opaque, items)
            default: return nil
            }
        default: return JinjaMethods.method(name, of: value)
        }
    }

    private func loopAttribute(_ name: String, of loop: JinjaLoop) throws -> JinjaValue? {
        switch name {
        case "cycle":
            return .opaque(JinjaOpaque(.function("loop.cycle") { _, arguments in try loop.cycle(arguments.positional) }))
        case "changed":
            return .opaque(JinjaOpaque(.function("loop.changed") { .bool(try loop.changed($1.positional, $0)) }))
        default: return try loop.attribute(name)
        }
    }

    private func cyclerAttribute(_ name: String, of cycler: JinjaOpaque, _ items: [JinjaValue]) -> JinjaValue? {
        switch name {
        case "current": return items[cycler.position % items.count]
        case "pos": return .int(cycler.position % items.count)
        case "items": return .tuple(JinjaArray(items))
        case "next":
            return .opaque(
                JinjaOpaque(
                    .function("next") { _, arguments in
                        _ = try arguments.bound(to: "next", [])
                        defer { cycler.position += 1 }
                        return items[cycler.position % items.count]
                    }, depth: cycler.depth))
        case "reset":
            return .opaque(
                JinjaOpaque(
                    .function("reset") { _, arguments in
                        _ = try arguments.bound(to: "reset", [])
                        cycler.position = 0
                        return .null
                    }))
        default: return nil
        }
    }

    private func macroAttribute(_ name: String, of macro: JinjaMacro) -> JinjaValue? {
        switch name {
        case "name": .string(macro.definition.name)
        case "arguments": .tuple(JinjaArray(macro.definition.parameters.map { .string($0.name) }))
        case "catch_kwargs": .bool(macro.definition.specials.contains("kwargs"))
        case "catch_varargs": .bool(macro.definition.specials.contains("varargs"))
        case "caller": .bool(macro.definition.specials.contains("caller"))
        default: nil
        }
    }

    // MARK: Slices

    func slice(_ value: JinjaValue, _ bounds: [JinjaValue]) throws -> JinjaValue {
        switch value {
        case .undefined(let undefined): throw undefined.error
        case .array(let items): return try list(try indices(bounds, count: items.count).map { items[$0] })
        case .tuple(let items): return try tuple(try indices(bounds, count: items.count).map { items[$0] })
        case .string(let text):
            try charge(4 * text.utf8.count)
            let scalars = Array(text.unicodeScalars)
            return try string(PythonText.text(try indices(bounds, count: scalars.count).map { scalars[$0] }))
        case .opaque(let opaque):
            guard case .range(let range) = opaque.payload else { break }
            // A slice of a range is a list here. Only its printed form differs from Python's.
            return try list(try indices(bounds, count: range.count).map { .int(range[$0]) })
        default: break
        }
        // jinja2's sandbox makes a failed look-up undefined.
        return .undefined("'\(value.typeName) object' cannot be sliced")
    }

    /// The indices that `[start:stop:step]` selects, as Python clips them.
    private func indices(_ bounds: [JinjaValue], count: Int) throws -> [Int] {
        let numbers = try bounds.map { bound -> Int? in
            if bound.isNull { return nil }
            guard let number = bound.integer else {
                throw JinjaError(.type(expected: "integers as bounds of a slice", found: bound.typeName))
            }
            return number
        }
        let step = numbers[2] ?? 1
        guard step != 0 else { throw JinjaError(.arithmetic("the step of a slice cannot be zero")) }
        let lowest = step > 0 ? 0 : -1
        let highest = step > 0 ? count : count - 1
        func clipped(_ number: Int?, _ otherwise: Int) -> Int {
            guard let number else { return otherwise }
            return number < 0 ? max(number &+ count, lowest) : min(number, highest)
        }
        let start = clipped(numbers[0], step > 0 ? 0 : count - 1)
        let stop = clipped(numbers[1], step > 0 ? count : -1)
        guard step > 0 ? start < stop : start > stop else { return [] }
        // A step beyond the end selects one element; clipped, so that adding it cannot overflow.
        return Array(stride(from: start, to: stop, by: max(-count, min(step, count))))
    }
}
