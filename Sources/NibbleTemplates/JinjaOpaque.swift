/// A value that has identity and belongs to the rendering that made it.
///
/// `@unchecked` because namespaces, loops and iterators are mutable. They stay within one rendering, which runs on one thread.
/// Only functions are made outside a rendering, and their closures are sendable.
public final class JinjaOpaque: @unchecked Sendable {
    typealias Body = @Sendable (JinjaInterpreter, JinjaArguments) throws -> JinjaValue

    enum Payload {
        case function(String, Body)
        case macro(JinjaMacro)
        case namespace
        case loop(JinjaLoop)
        /// The result of `map`, `select` and the like. It can be iterated once.
        case iterator([JinjaValue])
        /// `dict.keys()`, `dict.values()`, `dict.items()`.
        case view(String, [JinjaValue])
        case range(JinjaRange)
        /// `cycler(…)`: gives its items in turn.
        case cycler([JinjaValue])
        /// `joiner(…)`: nothing at the first call, then the separator.
        case joiner(JinjaValue)
    }

    let payload: Payload
    let depth: Int
    /// A namespace's attributes. A namespace has depth 0: the interpreter empties all namespaces at the end of the rendering,
    /// so chains and cycles of them neither leak nor are freed recursively.
    var attributes = JinjaObject()
    /// The consumed items of an iterator, the current item of a cycler, or the number of calls of a joiner.
    var position = 0

    init(_ payload: Payload, depth: Int = 0) {
        self.payload = payload
        self.depth = depth
    }

    static func iterator(_ items: [JinjaValue]) -> JinjaValue {
        .opaque(JinjaOpaque(.iterator(items), depth: JinjaArray(items).depth))
    }

    /// The number of elements of values that have `len()` in Python.
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
        case .cycler: "Cycler"
        case .joiner: "Joiner"
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

    /// The values of the parameters `names`; nil for those that the call leaves out.
    /// - Throws: `arguments` if the call has too many or unknown arguments, or lacks one of the first `required`.
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
