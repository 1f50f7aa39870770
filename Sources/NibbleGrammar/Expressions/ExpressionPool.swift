/// A regular expression over bytes: its number in an ``ExpressionPool``. Equal numbers are equal expressions.
typealias Expression = Int32

/// Regular expressions over bytes with intersection and complement, each kept once.
///
/// Expressions are simplified as they are made, so that those which derivatives lead to are few (Brzozowski 1964; Owens, Reppy
/// and Turon 2009).
struct ExpressionPool: Sendable {
    enum Node: Hashable, Sendable {
        /// No text at all.
        case nothing
        /// The empty text.
        case empty
        case bytes(ByteSet)
        case sequence(Expression, Expression)
        /// Sorted, at least two.
        case either([Expression])
        /// Sorted, at least two.
        case both([Expression])
        case complement(Expression)
        /// `maximum` −1: unbounded.
        case repetition(Expression, minimum: Int32, maximum: Int32)
        /// Decimal digits, with signs and points between them that do not count, whose value has the remainder 0 when
        /// `value` stands before them.
        case remainder(divisor: Int64, value: Int64)
    }

    private(set) var nodes: [Node] = []
    private var numbers: [Node: Expression] = [:]
    /// Whether the empty text is in it.
    private(set) var nullable: [Bool] = []
    /// Whether it may stand for no text although it is not ``nothing``: intersections and complements may.
    private(set) var mayBeDead: [Bool] = []
    /// What the work so far may still cost; see ``GrammarLimits``.
    var fuel = Fuel()
    /// The sizes of all expressions.
    private var size = 0

    /// Bytes that no expression tells apart have one class. Empty until ``closeClasses()``.
    private(set) var classes: [UInt8] = []
    /// A byte of each class.
    private(set) var representatives: [UInt8] = []
    /// Derivatives by class, found so far: one row of classes for each expression that has one.
    private var derivatives: [Expression] = []
    private var derivativeRows: [Int32] = []

    static let nothing: Expression = 0
    static let empty: Expression = 1
    /// Every text.
    static let anything: Expression = 2

    init() {
        _ = intern(.nothing)
        _ = intern(.empty)
        _ = intern(.complement(Self.nothing))
    }

    var count: Int { nodes.count }

    private mutating func intern(_ node: Node) -> Expression {
        fuel.spend(1)
        if let number = numbers[node] { return number }
        let cost = Self.size(node)
        guard size + cost <= GrammarLimits.expressionSize else {
            fuel.isFull = true
            return Self.nothing
        }
        size += cost
        fuel.spend(20 * cost)
        let number = Expression(nodes.count)
        nodes.append(node)
        numbers[node] = number
        nullable.append(isNullable(node))
        mayBeDead.append(canBeDead(node))
        return number
    }

    private static func size(_ node: Node) -> Int {
        switch node {
        case .either(let parts), .both(let parts): 2 + parts.count / 4
        default: 1
        }
    }

    /// About how many bytes it needs.
    var byteCount: Int { size * 120 + derivatives.count * 4 + derivativeRows.count * 4 }

    /// - Throws: ``GrammarError/tooComplex(what:limit:)`` if what was made since ``fuel`` was filled is incomplete.
    func check() throws(GrammarError) {
        if fuel.isFull { throw .tooComplex(what: "expressions", limit: GrammarLimits.expressionSize) }
        if fuel.isEmpty { throw .tooComplex(what: "steps", limit: fuel.budget) }
    }

    private func isNullable(_ node: Node) -> Bool {
        switch node {
        case .nothing, .bytes: false
        case .empty: true
        case .sequence(let a, let b): nullable[Int(a)] && nullable[Int(b)]
        case .either(let parts): parts.contains { nullable[Int($0)] }
        case .both(let parts): parts.allSatisfy { nullable[Int($0)] }
        case .complement(let inner): !nullable[Int(inner)]
        case .repetition(let inner, let minimum, _): minimum == 0 || nullable[Int(inner)]
        case .remainder(_, let value): value == 0
        }
    }

    private func canBeDead(_ node: Node) -> Bool {
        switch node {
        case .nothing, .empty, .bytes: false
        case .sequence(let a, let b): mayBeDead[Int(a)] || mayBeDead[Int(b)]
        case .either(let parts): parts.contains { mayBeDead[Int($0)] }
        case .both, .remainder: true
        case .complement(let inner): inner != Self.nothing
        case .repetition(let inner, let minimum, _): minimum > 0 && mayBeDead[Int(inner)]
        }
    }
}

// MARK: - Making expressions

extension ExpressionPool {
    mutating func bytes(_ set: ByteSet) -> Expression { set.isEmpty ? Self.nothing : intern(.bytes(set)) }
    mutating func byte(_ byte: UInt8) -> Expression { intern(.bytes(ByteSet([byte]))) }
    mutating func range(_ range: ClosedRange<UInt8>) -> Expression { intern(.bytes(ByteSet(range))) }

    mutating func text(_ bytes: some BidirectionalCollection<UInt8>) -> Expression {
        var result = Self.empty
        for byte in bytes.reversed() { result = sequence(self.byte(byte), result) }
        return result
    }

    mutating func text(_ string: String) -> Expression { text(Array(string.utf8)) }

    mutating func sequence(_ first: Expression, _ second: Expression) -> Expression {
        if first == Self.nothing || second == Self.nothing { return Self.nothing }
        if first == Self.empty { return second }
        if second == Self.empty { return first }
        // To the right, one element at a time, whatever the length.
        var heads: [Expression] = []
        var last = first
        while case .sequence(let head, let tail) = nodes[Int(last)] {
            heads.append(head)
            last = tail
        }
        fuel.spend(heads.count)
        var result = intern(.sequence(last, second))
        for head in heads.reversed() { result = intern(.sequence(head, result)) }
        return result
    }

    mutating func sequence(_ parts: [Expression]) -> Expression {
        var result = Self.empty
        for part in parts.reversed() { result = sequence(part, result) }
        return result
    }

    mutating func either(_ parts: [Expression]) -> Expression {
        var flat: [Expression] = []
        var set = ByteSet()
        for part in parts {
            switch nodes[Int(part)] {
            case .nothing: continue
            case .either(let inner): flat += inner
            case .bytes(let bytes): set.formUnion(bytes)
            default:
                if part == Self.anything { return part }
                flat.append(part)
            }
        }
        fuel.spend(flat.count)
        // Sets of bytes within a flattened part join the others.
        flat = flat.filter { part in
            guard case .bytes(let bytes) = nodes[Int(part)] else { return true }
            set.formUnion(bytes)
            return false
        }
        if !set.isEmpty { flat.append(bytes(set)) }
        let unique = Self.sortedUnique(flat)
        switch unique.count {
        case 0: return Self.nothing
        case 1: return unique[0]
        default: return intern(.either(unique))
        }
    }

    mutating func optional(_ inner: Expression) -> Expression { either([Self.empty, inner]) }

    mutating func both(_ parts: [Expression]) -> Expression {
        var flat: [Expression] = []
        for part in parts {
            if case .both(let inner) = nodes[Int(part)] { flat += inner } else { flat.append(part) }
        }
        flat.removeAll { $0 == Self.anything }
        let unique = Self.sortedUnique(flat)
        if unique.contains(Self.nothing) { return Self.nothing }
        if unique.contains(Self.empty) { return unique.allSatisfy { nullable[Int($0)] } ? Self.empty : Self.nothing }
        switch unique.count {
        case 0: return Self.anything
        case 1: return unique[0]
        default: return intern(.both(unique))
        }
    }

    mutating func complement(_ inner: Expression) -> Expression {
        if case .complement(let original) = nodes[Int(inner)] { return original }
        return intern(.complement(inner))
    }

    mutating func repetition(_ inner: Expression, _ minimum: Int, _ maximum: Int?) -> Expression {
        if maximum == 0 || inner == Self.empty { return Self.empty }
        if inner == Self.nothing { return minimum == 0 ? Self.empty : Self.nothing }
        if minimum == 1, maximum == 1 { return inner }
        if case .repetition(_, 0, -1) = nodes[Int(inner)] { return inner }
        return intern(.repetition(inner, minimum: Int32(minimum), maximum: maximum.map(Int32.init) ?? -1))
    }

    mutating func star(_ inner: Expression) -> Expression { repetition(inner, 0, nil) }

    mutating func remainder(divisor: Int64, value: Int64) -> Expression { intern(.remainder(divisor: divisor, value: value)) }

    private static func sortedUnique(_ parts: [Expression]) -> [Expression] {
        var sorted = parts.sorted()
        var last: Expression = -1
        sorted.removeAll { part in
            defer { last = part }
            return part == last
        }
        return sorted
    }
}

// MARK: - Derivatives

extension ExpressionPool {
    /// What may follow `byte` in a text of `expression`. ``nothing`` where fuel has run out: ``check()`` tells.
    mutating func derivative(_ expression: Expression, _ byte: UInt8) -> Expression {
        guard !classes.isEmpty else { return makeDerivative(expression, byte) }
        return derivative(expression, class: Int(classes[Int(byte)]))
    }

    /// The derivative by the bytes of a class, known from the second time on.
    mutating func derivative(_ expression: Expression, class number: Int) -> Expression {
        if expression <= Self.empty { return Self.nothing }
        while derivativeRows.count <= Int(expression) { derivativeRows.append(-1) }
        var row = Int(derivativeRows[Int(expression)])
        if row >= 0 {
            let known = derivatives[row + number]
            if known >= 0 { return known }
        }
        let result = makeDerivative(expression, representatives[number])
        guard !fuel.isEmpty, !fuel.isFull else { return Self.nothing }
        if derivatives.count > GrammarLimits.derivatives {
            derivatives.removeAll(keepingCapacity: true)
            derivativeRows.removeAll(keepingCapacity: true)
        }
        while derivativeRows.count <= Int(expression) { derivativeRows.append(-1) }
        row = Int(derivativeRows[Int(expression)])
        if row < 0 {
            row = derivatives.count
            derivativeRows[Int(expression)] = Int32(row)
            derivatives += repeatElement(-1, count: representatives.count)
        }
        derivatives[row + number] = result
        return result
    }

    private mutating func makeDerivative(_ expression: Expression, _ byte: UInt8) -> Expression {
        fuel.spend(5)
        guard !fuel.isEmpty, !fuel.isFull else { return Self.nothing }
        switch nodes[Int(expression)] {
        case .nothing, .empty: return Self.nothing
        case .bytes(let set): return set.contains(byte) ? Self.empty : Self.nothing
        case .sequence: return sequenceDerivative(expression, byte)
        case .either(let parts):
            fuel.spend(parts.count)
            return either(parts.map { derivative($0, byte) })
        case .both(let parts):
            var derivatives: [Expression] = []
            for part in parts {
                let next = derivative(part, byte)
                if next == Self.nothing { return Self.nothing }
                derivatives.append(next)
            }
            return both(derivatives)
        case .complement(let inner): return complement(derivative(inner, byte))
        case .repetition(let inner, let minimum, let maximum):
            let next = derivative(inner, byte)
            if next == Self.nothing { return Self.nothing }
            let rest = repetition(inner, max(Int(minimum) - 1, 0), maximum < 0 ? nil : Int(maximum) - 1)
            return sequence(next, rest)
        case .remainder(let divisor, let value):
            guard (0x30...0x39).contains(byte) else {
                return byte == 0x2D || byte == 0x2E ? expression : Self.nothing
            }
            return remainder(divisor: divisor, value: (value * 10 + Int64(byte - 0x30)) % divisor)
        }
    }

    /// Goes through a chain of elements by a loop: chains are as long as texts.
    private mutating func sequenceDerivative(_ expression: Expression, _ byte: UInt8) -> Expression {
        var parts: [Expression] = []
        var current = expression
        while case .sequence(let first, let second) = nodes[Int(current)] {
            fuel.spend(1)
            let next = derivative(first, byte)
            if next != Self.nothing { parts.append(sequence(next, second)) }
            guard nullable[Int(first)] else { return parts.count == 1 ? parts[0] : either(parts) }
            current = second
        }
        parts.append(derivative(current, byte))
        return either(parts)
    }

    /// Fixes the classes of bytes; no expression with other sets of bytes may be made afterwards.
    mutating func closeClasses() {
        classes = byteClasses()
        representatives = [UInt8](repeating: 0, count: Int(classes.max() ?? 0) + 1)
        for byte in (0...255).reversed() { representatives[Int(classes[byte])] = UInt8(byte) }
    }

    /// Sets of bytes that no expression tells apart, as a class of each byte. Derivatives make no new ones.
    private func byteClasses() -> [UInt8] {
        var classes = [Int](repeating: 0, count: 256)
        var sets: Set<ByteSet> = []
        for node in nodes {
            if case .bytes(let set) = node { sets.insert(set) }
            if case .remainder = node {
                for digit in UInt8(0x30)...0x39 { sets.insert(ByteSet([digit])) }
                sets.insert(ByteSet([0x2D, 0x2E]))
            }
        }
        for set in sets {
            var split: [Int: Int] = [:]
            var next = (classes.max() ?? 0) + 1
            for byte in 0..<256 where set.contains(UInt8(byte)) {
                if split[classes[byte]] == nil {
                    split[classes[byte]] = next
                    next += 1
                }
                classes[byte] = split[classes[byte]] ?? 0
            }
        }
        var numbers: [Int: UInt8] = [:]
        return classes.map { value in
            if let number = numbers[value] { return number }
            let number = UInt8(numbers.count)
            numbers[value] = number
            return number
        }
    }
}
