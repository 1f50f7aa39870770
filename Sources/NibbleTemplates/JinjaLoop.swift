/// The `loop` variable. Items are taken one by one, so a `for … if` tests an item only when the loop reaches it.
/// `@unchecked` for the same reason as `JinjaOpaque`.
final class JinjaLoop: @unchecked Sendable {
    private let advance: () throws -> JinjaValue?
    private var waiting: [JinjaValue] = []
    private var before: JinjaValue?
    private var current: JinjaValue?
    private var lastChanged: [JinjaValue]?
    /// The number of items if they are not filtered. Otherwise `loop.length` counts them.
    private(set) var knownLength: Int?
    private(set) var index0 = -1
    let depth0: Int
    /// Renders the loop's body over other items; only in loops marked `recursive`.
    private var recursion: ((JinjaValue) throws -> JinjaValue)?

    init(
        depth0: Int, length: Int?, advance: @escaping () throws -> JinjaValue?,
        recursion: ((JinjaValue) throws -> JinjaValue)? = nil
    ) {
        self.depth0 = depth0
        self.advance = advance
        self.recursion = recursion
        knownLength = length
    }

    func next() throws -> JinjaValue? {
        let item = try waiting.isEmpty ? advance() : waiting.removeFirst()
        guard let item else { return nil }
        index0 += 1
        before = current
        current = item
        return item
    }

    private func peek() throws -> JinjaValue? {
        if waiting.isEmpty, let item = try advance() { waiting.append(item) }
        return waiting.first
    }

    private func length() throws -> Int {
        if let knownLength { return knownLength }
        while let item = try advance() { waiting.append(item) }
        let length = index0 + 1 + waiting.count
        knownLength = length
        return length
    }

    func attribute(_ name: String) throws -> JinjaValue? {
        switch name {
        case "index": .int(index0 + 1)
        case "index0": .int(index0)
        case "first": .bool(index0 == 0)
        case "last": .bool(try peek() == nil)
        case "length": .int(try length())
        case "revindex": .int(try length() - index0)
        case "revindex0": .int(try length() - index0 - 1)
        case "previtem": before ?? .undefined("there is no previous item")
        case "nextitem": try peek() ?? .undefined("there is no next item")
        case "depth": .int(depth0 + 1)
        case "depth0": .int(depth0)
        default: nil
        }
    }

    /// `loop(items)`
    func recurse(_ items: JinjaValue) throws -> JinjaValue {
        guard let recursion else {
            throw JinjaError(.type(expected: "a loop marked 'recursive' to be called", found: "an ordinary loop"))
        }
        return try recursion(items)
    }

    func cycle(_ items: [JinjaValue]) throws -> JinjaValue {
        guard !items.isEmpty else { throw JinjaError(.arguments(function: "loop.cycle", problem: "no items for cycling given")) }
        return items[index0 % items.count]
    }

    func changed(_ values: [JinjaValue], _ interpreter: JinjaInterpreter) throws -> Bool {
        defer { lastChanged = values }
        return try lastChanged.map { try !JinjaOperators.equal(.list($0), .list(values), interpreter) } ?? true
    }
}
