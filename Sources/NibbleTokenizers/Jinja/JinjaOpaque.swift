/// A value that only templates make: it has identity, and no form outside the rendering that made it.
///
/// Unchecked because namespaces, loops and iterators change; they never leave the one rendering, on one thread, that made them.
/// The only ones made outside a rendering are functions, whose closures are sendable.
public final class JinjaOpaque: @unchecked Sendable {
    typealias Body = @Sendable (JinjaInterpreter, JinjaArguments) throws -> JinjaValue

    enum Payload {
        case function(String, Body)
        case macro(JinjaMacro)
        case namespace
        case loop(JinjaLoop)
        /// What `map`, `select` … give: can be walked once.
        case iterator([JinjaValue])
        /// `dict.keys()`, `dict.values()`, `dict.items()`.
        case view(String, [JinjaValue])
        case range(JinjaRange)
    }

    let payload: Payload
    let depth: Int
    /// A namespace's attributes. Namespaces count as depth 0: the interpreter knows them all and empties them at the end,
    /// so that chains and cycles of them neither leak nor unwind recursively.
    var attributes = JinjaObject()
    /// How much of an iterator is used up.
    var position = 0

    init(_ payload: Payload, depth: Int = 0) {
        self.payload = payload
        self.depth = depth
    }

    static func iterator(_ items: [JinjaValue]) -> JinjaValue {
        .opaque(JinjaOpaque(.iterator(items), depth: JinjaArray(items).depth))
    }

    /// The number of elements, for what has `len()` in Python.
    var count: Int? {
        switch payload {
        case .view(_, let items): items.count
        case .range(let range): range.count
        case .loop(let loop): loop.knownLength
        default: nil
        }
    }

    var typeName: String {
        switch payload {
        case .function: "function"
        case .macro: "Macro"
        case .namespace: "Namespace"
        case .loop: "LoopContext"
        case .iterator: "generator"
        case .view(let kind, _): "dict_\(kind)"
        case .range: "range"
        }
    }

    static func == (left: JinjaOpaque, right: JinjaOpaque) -> Bool {
        if left === right { return true }
        guard case (.range(let a), .range(let b)) = (left.payload, right.payload) else { return false }
        return a.count == b.count && (a.count == 0 || a.start == b.start) && (a.count < 2 || a.step == b.step)
    }
}

/// Python's `range`, of at most `JinjaLimits.rangeLength` elements.
struct JinjaRange: Sendable {
    let start: Int
    let step: Int
    let count: Int

    var values: [Int] { (0..<count).map { start &+ $0 &* step } }
    subscript(index: Int) -> Int { start &+ index &* step }

    var stop: Int { start &+ count &* step }
}

/// Arguments of a call as written: positional ones, then named ones in order.
struct JinjaArguments: Sendable {
    var positional: [JinjaValue] = []
    var named: [(key: String, value: JinjaValue)] = []

    /// Values for the parameters `names`, nil where the call gives none.
    /// - Throws: `arguments` for too many or unknown ones, and for missing ones among the first `required`.
    func bound(to function: String, _ names: [String], required: Int = 0) throws -> [JinjaValue?] {
        guard positional.count <= names.count else {
            throw JinjaError(
                .arguments(function: function, problem: "takes at most \(names.count) arguments, got \(positional.count)"))
        }
        var result: [JinjaValue?] = positional.map { $0 } + Array(repeating: nil, count: names.count - positional.count)
        for (key, value) in named {
            guard let place = names.firstIndex(of: key), place >= positional.count else {
                throw JinjaError(.arguments(function: function, problem: "unexpected argument '\(key)'"))
            }
            result[place] = value
        }
        if let missing = (0..<required).first(where: { result[$0] == nil }) {
            throw JinjaError(.arguments(function: function, problem: "argument '\(names[missing])' is missing"))
        }
        return result
    }
}
