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

    private(set) var pool: ExpressionPool
    private var rules: GrammarRules
    let classes: [UInt8]
    let classCount: Int
    /// The classes of the bytes that need no escape in a JSON string.
    private let plainClasses: [Int]

    private var stacks: [[Frame]] = []
    private var stackNumbers: [[Frame]: Stack] = [:]
    private var states: [[Thread]] = []
    private var accepts: [Bool] = []
    private var stateNumbers: [StateKey: State] = [:]
    /// By state and class.
    private var transitions: [State] = []
    /// By expression: whether it has a text. Only for those that may have none.
    private var liveness = ExpressionLiveness()
    private var frameCount = 0
    /// By state: how many bytes that need no escape may follow, whichever they are; −1 if that is not known.
    private var plainRuns: [Int16] = []
    private(set) var start: State = dead

    private typealias Stack = Int32

    /// The top of a stack and the stacks it may lie on.
    private enum Frame: Hashable, Comparable, Sendable {
        case end
        case symbol(GrammarRules.Symbol, Stack)

        static func < (a: Frame, b: Frame) -> Bool { a.order < b.order }

        func hash(into hasher: inout Hasher) {
            let order = order
            hasher.combine(UInt64(UInt32(bitPattern: order.1)) << 32 | UInt64(UInt32(bitPattern: order.2)) << 1 ^ UInt64(order.0))
        }

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

        func hash(into hasher: inout Hasher) {
            hasher.combine(UInt64(UInt32(bitPattern: lexeme)) << 32 | UInt64(UInt32(bitPattern: rest)))
        }
    }

    private struct StateKey: Hashable, Sendable {
        var threads: [Thread]
        var accepts: Bool
    }

    /// - Throws: ``GrammarError/unsatisfiable(path:)`` if the grammar has no text; ``GrammarError/notation(line:problem:)`` if a rule
    ///   can begin with itself.
    init(_ pool: ExpressionPool, _ rules: GrammarRules, start rule: Int32) throws(GrammarError) {
        self.pool = pool
        try pool.check()
        self.pool.closeClasses()
        self.rules = rules
        let classes = self.pool.classes
        self.classes = classes
        classCount = self.pool.representatives.count
        plainClasses = Set(GrammarVocabulary.plainBytes.map { Int(classes[Int($0)]) }).sorted()
        var known: [Expression: Bool] = [:]
        for symbol in Set(rules.alternatives.joined().joined()) {
            if case .lexeme(let lexeme) = symbol { known[lexeme] = try liveness.isAlive(lexeme, &self.pool) }
        }
        let hasTexts = self.rules.removeUnproductive { known[$0] == false }
        guard hasTexts[Int(rule)] else { throw .unsatisfiable(path: "its root") }
        self.rules.unordered.close(ruleCount: rules.count) { member in
            hasTexts[Int(member.value)] && known[member.first] != false && known[member.later] != false
        }
        let nullable = self.pool.nullable
        if self.rules.leftRecursiveRule(nullable: { nullable[Int($0)] }) != nil {
            throw .notation(line: 0, problem: "a rule begins with itself (left recursion)")
        }
        start = try makeState([:], closing: [.symbol(.rule(rule), try stack([.end]))])
    }

    var stateCount: Int { states.count }

    /// About how many bytes it needs.
    var byteCount: Int {
        transitions.count * 4 + states.count * 160 + stacks.count * 96 + frameCount * 48 + rules.symbolCount * 24 + pool.byteCount
            + rules.unordered.byteCount
    }

    /// Whether a text that leads to `state` is complete.
    func isAccepting(_ state: State) -> Bool { state != Self.dead && accepts[Int(state)] }

    /// Whether a text that leads to `state` can go on.
    func canContinue(_ state: State) -> Bool { state != Self.dead && !states[Int(state)].isEmpty }

    /// The state after one more byte.
    @inline(__always)
    mutating func next(_ state: State, _ byte: UInt8) throws(GrammarError) -> State {
        guard state != Self.dead else { return Self.dead }
        let place = Int(state) * classCount + Int(classes[Int(byte)])
        let known = transitions[place]
        return known != Self.unknown ? known : try makeTransition(state, Int(classes[Int(byte)]))
    }

    /// The state after more bytes.
    mutating func next(_ state: State, _ bytes: [UInt8]) throws(GrammarError) -> State {
        var state = state
        for byte in bytes {
            state = try next(state, byte)
            if state == Self.dead { break }
        }
        return state
    }

    /// Gives the steps that a mask or an advance may take.
    mutating func fillFuel() { pool.fuel.fill(GrammarLimits.maskSteps) }

    private mutating func makeTransition(_ state: State, _ number: Int) throws(GrammarError) -> State {
        var threads: [Expression: Set<Frame>] = [:]
        for thread in states[Int(state)] {
            let lexeme = pool.derivative(thread.lexeme, class: number)
            guard lexeme != ExpressionPool.nothing, try liveness.isAlive(lexeme, &pool) else { continue }
            pool.fuel.spend(5 * stacks[Int(thread.rest)].count)
            threads[lexeme, default: []].formUnion(stacks[Int(thread.rest)])
        }
        try pool.check()
        var closing: [Frame] = []
        for (lexeme, frames) in threads where pool.nullable[Int(lexeme)] { closing += frames }
        threads[ExpressionPool.empty] = nil
        let target = threads.isEmpty && closing.isEmpty ? Self.dead : try makeState(threads, closing: closing)
        transitions[Int(state) * classCount + number] = target
        return target
    }

    /// How many bytes that need no escape in a JSON string may follow, whichever they are; not counted beyond ``countedRun``, but
    /// for states that stay the same.
    mutating func plainRun(_ state: State) throws(GrammarError) -> Int {
        guard state != Self.dead else { return 0 }
        var chain: [State] = []
        var current = state
        var run = 0
        while chain.count < Self.countedRun {
            if plainRuns[Int(current)] >= 0 {
                run = Int(plainRuns[Int(current)])
                break
            }
            guard let next = try plainSuccessor(current) else {
                plainRuns[Int(current)] = 0
                break
            }
            if next == current {
                run = TokenTrie.maximumTokenBytes
                plainRuns[Int(current)] = Int16(run)
                break
            }
            chain.append(current)
            current = next
        }
        if chain.count == Self.countedRun {
            // Only of its beginning is known how long the chain is.
            plainRuns[Int(state)] = Int16(Self.countedRun)
            return Self.countedRun
        }
        for before in chain.reversed() {
            run = min(run + 1, TokenTrie.maximumTokenBytes)
            plainRuns[Int(before)] = Int16(run)
        }
        return run
    }

    private static let countedRun = 32

    /// The state that all bytes without escape lead to, if it is one.
    private mutating func plainSuccessor(_ state: State) throws(GrammarError) -> State? {
        let threads = states[Int(state)]
        var common: State?
        var lexemes: [Expression] = []
        for number in plainClasses {
            let place = Int(state) * classCount + number
            var next = transitions[place]
            if next == Self.unknown {
                // Equal derivatives lead to one state.
                if common == nil {
                    lexemes = threads.map { pool.derivative($0.lexeme, class: number) }
                } else if !lexemes.isEmpty {
                    var isSame = true
                    for (index, thread) in threads.enumerated()
                    where pool.derivative(thread.lexeme, class: number) != lexemes[index] {
                        isSame = false
                        break
                    }
                    guard isSame else { return nil }
                    try pool.check()
                    transitions[place] = common ?? Self.unknown
                }
                if transitions[place] == Self.unknown { _ = try makeTransition(state, number) }
                next = transitions[place]
            }
            guard next != Self.dead, common == nil || common == next else { return nil }
            common = next
        }
        return common
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
                    pool.fuel.spend(5 * frames.count)
                    threads[lexeme, default: []].formUnion(frames)
                    let hasGrown = isNew || threads[lexeme]?.count != before
                    if hasGrown, pool.nullable[Int(lexeme)] { queue += frames }
                case .symbol(.rule(let rule), let rest):
                    let before = rests[rule]?.count ?? -1
                    pool.fuel.spend(5 * stacks[Int(rest)].count)
                    rests[rule, default: []].formUnion(stacks[Int(rest)])
                    if rests[rule]?.count != before { grown.append(rule) }
                }
            }
            guard let rule = grown.popLast() else { break }
            pool.fuel.spend(grown.count)
            grown.removeAll { $0 == rule }
            try pool.check()
            let rest = try stack(Array(rests[rule] ?? []))
            for alternative in rules.alternatives(of: rule) {
                guard let first = alternative.first else {
                    queue += stacks[Int(rest)]
                    continue
                }
                pool.fuel.spend(10 * alternative.count)
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
        guard states.count < GrammarLimits.states else { throw .tooComplex(what: "states", limit: GrammarLimits.states) }
        try countFrames(list.count)
        let state = State(states.count)
        states.append(list)
        self.accepts.append(accepts)
        stateNumbers[key] = state
        plainRuns.append(-1)
        transitions += repeatElement(Self.unknown, count: classCount)
        return state
    }

    private mutating func stack(_ frames: [Frame]) throws(GrammarError) -> Stack {
        let sorted = frames.count > 1 ? frames.sorted() : frames
        if let stack = stackNumbers[sorted] { return stack }
        guard stacks.count < GrammarLimits.stacks else { throw .tooComplex(what: "stacks", limit: GrammarLimits.stacks) }
        try countFrames(sorted.count)
        let stack = Stack(stacks.count)
        stacks.append(sorted)
        stackNumbers[sorted] = stack
        return stack
    }

    private mutating func countFrames(_ count: Int) throws(GrammarError) {
        pool.fuel.spend(10 * count)
        frameCount += count
        guard frameCount <= GrammarLimits.frames else { throw .tooComplex(what: "frames", limit: GrammarLimits.frames) }
    }
}
