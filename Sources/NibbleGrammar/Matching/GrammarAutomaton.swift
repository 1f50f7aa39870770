/// The states that texts of a grammar lead to, made as they are met.
///
/// A state is a set of threads: a lexeme in progress, and what may follow it. What may follow is a stack whose tails are shared
/// (a graph-structured stack, Tomita 1985); stacks, like states, are kept once, so that equal states are one number and a walk over
/// known states is one look-up a byte.
struct GrammarAutomaton: Sendable {
    typealias State = Int32

    /// No text of the grammar begins so.
    static let dead: State = -1
    private static let unknown: State = -2
    static let maximumStates = 50_000
    private static let maximumStacks = 500_000

    private var pool: ExpressionPool
    private var rules: GrammarRules
    private let classes: [UInt8]
    /// A byte of each class.
    private let representatives: [UInt8]

    private var stacks: [[Frame]] = []
    private var stackNumbers: [[Frame]: Stack] = [:]
    private var states: [[Thread]] = []
    private var accepts: [Bool] = []
    private var stateNumbers: [StateKey: State] = [:]
    /// By state and class.
    private var transitions: [State] = []
    /// By expression: whether it has a text. Only for those that may have none.
    private var liveness: [Expression: Bool] = [:]
    private(set) var start: State = dead

    private typealias Stack = Int32

    /// The top of a stack and the stacks it may lie on.
    private enum Frame: Hashable, Comparable, Sendable {
        case end
        case symbol(GrammarRules.Symbol, Stack)

        static func < (a: Frame, b: Frame) -> Bool { a.order < b.order }

        private var order: (Int32, Int32, Int32) {
            switch self {
            case .end: (0, 0, 0)
            case .symbol(.lexeme(let expression), let rest): (1, expression, rest)
            case .symbol(.rule(let rule), let rest): (2, rule, rest)
            }
        }
    }

    private struct Thread: Hashable, Sendable {
        var lexeme: Expression
        var rest: Stack
    }

    private struct StateKey: Hashable, Sendable {
        var threads: [Thread]
        var accepts: Bool
    }

    /// - Throws: ``GrammarError/unsatisfiable(path:)`` if the grammar has no text; ``GrammarError/notation(line:problem:)`` if a rule
    ///   can begin with itself.
    init(_ pool: ExpressionPool, _ rules: GrammarRules, start rule: Int32) throws(GrammarError) {
        self.pool = pool
        classes = pool.byteClasses()
        var representatives = [UInt8](repeating: 0, count: Int(classes.max() ?? 0) + 1)
        for byte in (0...255).reversed() { representatives[Int(classes[byte])] = UInt8(byte) }
        self.representatives = representatives
        self.rules = rules
        for symbol in Set(rules.alternatives.joined().joined()) {
            if case .lexeme(let lexeme) = symbol { liveness[lexeme] = try isAlive(lexeme) }
        }
        let known = liveness
        let hasTexts = self.rules.removeUnproductive { known[$0] == false }
        guard hasTexts[Int(rule)] else { throw .unsatisfiable(path: "its root") }
        if self.rules.leftRecursiveRule(nullable: { pool.nullable[Int($0)] }) != nil {
            throw .notation(line: 0, problem: "a rule begins with itself (left recursion)")
        }
        start = try makeState([:], closing: [.symbol(.rule(rule), try stack([.end]))])
    }

    var stateCount: Int { states.count }

    /// Whether a text that leads to `state` is complete.
    func isAccepting(_ state: State) -> Bool { state != Self.dead && accepts[Int(state)] }

    /// Whether a text that leads to `state` can go on.
    func canContinue(_ state: State) -> Bool { state != Self.dead && !states[Int(state)].isEmpty }

    /// The state after one more byte.
    @inline(__always)
    mutating func next(_ state: State, _ byte: UInt8) throws(GrammarError) -> State {
        guard state != Self.dead else { return Self.dead }
        let place = Int(state) * representatives.count + Int(classes[Int(byte)])
        let known = transitions[place]
        return known != Self.unknown ? known : try makeTransition(state, byte, place)
    }

    private mutating func makeTransition(_ state: State, _ byte: UInt8, _ place: Int) throws(GrammarError) -> State {
        var threads: [Expression: Set<Frame>] = [:]
        for thread in states[Int(state)] {
            let lexeme = pool.derivative(thread.lexeme, representatives[Int(classes[Int(byte)])])
            guard lexeme != ExpressionPool.nothing, try isAlive(lexeme) else { continue }
            threads[lexeme, default: []].formUnion(stacks[Int(thread.rest)])
        }
        var closing: [Frame] = []
        for (lexeme, frames) in threads where pool.nullable[Int(lexeme)] { closing += frames }
        threads[ExpressionPool.empty] = nil
        let target = threads.isEmpty && closing.isEmpty ? Self.dead : try makeState(threads, closing: closing)
        transitions[place] = target
        return target
    }

    /// The state with these threads and all that begin where `frames` are reached.
    private mutating func makeState(
        _ started: [Expression: Set<Frame>], closing frames: [Frame]
    ) throws(GrammarError) -> State {
        var threads = started
        var accepts = false
        var rests: [Int32: Set<Frame>] = [:]
        var grown: [Int32] = []
        var queue = frames
        while true {
            while let frame = queue.popLast() {
                switch frame {
                case .end: accepts = true
                case .symbol(.lexeme(let lexeme), let rest):
                    let (isNew, frames) = (threads[lexeme] == nil, stacks[Int(rest)])
                    let before = threads[lexeme]?.count ?? 0
                    threads[lexeme, default: []].formUnion(frames)
                    let hasGrown = isNew || threads[lexeme]?.count != before
                    if hasGrown, pool.nullable[Int(lexeme)] { queue += frames }
                case .symbol(.rule(let rule), let rest):
                    let before = rests[rule]?.count ?? -1
                    rests[rule, default: []].formUnion(stacks[Int(rest)])
                    if rests[rule]?.count != before { grown.append(rule) }
                }
            }
            guard let rule = grown.popLast() else { break }
            grown.removeAll { $0 == rule }
            let rest = try stack(Array(rests[rule] ?? []))
            for alternative in rules.alternatives[Int(rule)] {
                guard let first = alternative.first else {
                    queue += stacks[Int(rest)]
                    continue
                }
                var tail = rest
                for symbol in alternative.dropFirst().reversed() { tail = try stack([.symbol(symbol, tail)]) }
                queue.append(.symbol(first, tail))
            }
        }
        threads[ExpressionPool.empty] = nil
        return try intern(threads, accepts)
    }

    private mutating func intern(_ threads: [Expression: Set<Frame>], _ accepts: Bool) throws(GrammarError) -> State {
        var list: [Thread] = []
        for (lexeme, frames) in threads { list.append(Thread(lexeme: lexeme, rest: try stack(Array(frames)))) }
        list.sort { $0.lexeme < $1.lexeme }
        let key = StateKey(threads: list, accepts: accepts)
        if let state = stateNumbers[key] { return state }
        guard states.count < Self.maximumStates else { throw .tooComplex(what: "states", limit: Self.maximumStates) }
        let state = State(states.count)
        states.append(list)
        self.accepts.append(accepts)
        stateNumbers[key] = state
        transitions += repeatElement(Self.unknown, count: representatives.count)
        return state
    }

    private mutating func stack(_ frames: [Frame]) throws(GrammarError) -> Stack {
        let sorted = frames.count > 1 ? frames.sorted() : frames
        if let stack = stackNumbers[sorted] { return stack }
        guard stacks.count < Self.maximumStacks else { throw .tooComplex(what: "stacks", limit: Self.maximumStacks) }
        let stack = Stack(stacks.count)
        stacks.append(sorted)
        stackNumbers[sorted] = stack
        return stack
    }

    // MARK: Dead ends

    private static let maximumSearch = 20_000

    /// Whether some text is in the expression: without this, a mask could allow tokens that lead nowhere.
    private mutating func isAlive(_ expression: Expression) throws(GrammarError) -> Bool {
        guard expression != ExpressionPool.nothing else { return false }
        guard pool.mayBeDead[Int(expression)], !pool.nullable[Int(expression)] else { return true }
        if let known = liveness[expression] { return known }
        var seen: [Expression: Expression] = [expression: expression]
        var queue = [expression]
        var index = 0
        while index < queue.count {
            let current = queue[index]
            index += 1
            guard index <= Self.maximumSearch else { throw .tooComplex(what: "steps to find a text", limit: Self.maximumSearch) }
            for byte in representatives {
                let next = pool.derivative(current, byte)
                guard next != ExpressionPool.nothing, seen[next] == nil else { continue }
                seen[next] = current
                if pool.nullable[Int(next)] || !pool.mayBeDead[Int(next)] || liveness[next] == true {
                    // All on the way here have a text.
                    var place = next
                    while seen[place] != place, let before = seen[place] {
                        liveness[place] = true
                        place = before
                    }
                    liveness[expression] = true
                    return true
                }
                if liveness[next] == nil { queue.append(next) }
            }
        }
        for dead in queue { liveness[dead] = false }
        return false
    }
}
