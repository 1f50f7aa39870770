/// A compiled regular expression that finds leftmost matches in linear time and constant stack.
///
/// Backtracking as in Oniguruma, first alternative first, with two additions: a place in the program that has failed at a place
/// of the text is not tried there again (whether it matches depends on the two alone), and alternatives wait on an explicit
/// stack. A repetition of one set remembers a range of such places instead of single ones.
struct Pattern: Sendable {
    enum Instruction: Sendable {
        case set(Int)
        case jump(Int)
        /// Try `first`, then `second`. `memo`: its row among the remembered failures.
        case split(first: Int, second: Int, memo: Int)
        /// The unbounded repetition of one set; `slot`: its range of failures.
        case run(set: Int, slot: Int, isPossessive: Bool)
        case look(end: Int, isNegative: Bool)
        case atomic(end: Int)
        case accept
    }

    static let maximumLength = 20_000

    let source: String
    private(set) var program: [Instruction] = []
    private(set) var sets: [ScalarSet] = []
    private(set) var memoCount = 0
    private(set) var slotCount = 0

    init(_ source: String) throws(PatternSyntaxError) {
        self.source = source
        try emit(try PatternParser.parse(source))
        program.append(.accept)
    }
}

// MARK: - Compilation

extension Pattern {
    private mutating func append(_ instruction: Instruction) throws(PatternSyntaxError) {
        guard program.count < Self.maximumLength else { throw PatternSyntaxError(syntax: "the pattern is too large") }
        program.append(instruction)
    }

    private mutating func index(of set: ScalarSet) -> Int {
        sets.append(set.compiled())
        return sets.count - 1
    }

    private mutating func newMemo() -> Int {
        memoCount += 1
        return memoCount - 1
    }

    private mutating func emit(_ node: PatternNode) throws(PatternSyntaxError) {
        switch node {
        case .set(let set): try append(.set(index(of: set)))
        case .sequence(let parts): for part in parts { try emit(part) }
        case .alternatives(let branches): try emitAlternatives(branches)
        case .repetition(let body, let minimum, let maximum, let isPossessive):
            try emitRepetition(body, minimum, maximum, isPossessive)
        case .lookAhead(let body, let isNegative):
            try emitNested(body) { .look(end: $0, isNegative: isNegative) }
        case .atomic(let body):
            try emitNested(body) { .atomic(end: $0) }
        }
    }

    private mutating func emitNested(_ body: PatternNode, _ make: (Int) -> Instruction) throws(PatternSyntaxError) {
        let start = program.count
        try append(.accept)
        try emit(body)
        try append(.accept)
        program[start] = make(program.count)
    }

    private mutating func emitAlternatives(_ branches: [PatternNode]) throws(PatternSyntaxError) {
        var exits: [Int] = []
        for (number, branch) in branches.enumerated() {
            guard number < branches.count - 1 else {
                try emit(branch)
                break
            }
            let split = program.count
            try append(.accept)
            let memo = newMemo()
            try emit(branch)
            exits.append(program.count)
            try append(.accept)
            program[split] = .split(first: split + 1, second: program.count, memo: memo)
        }
        for exit in exits { program[exit] = .jump(program.count) }
    }

    private mutating func emitRepetition(
        _ body: PatternNode, _ minimum: Int, _ maximum: Int?, _ isPossessive: Bool
    ) throws(PatternSyntaxError) {
        if isPossessive, !(maximum == nil && body.isSet) {
            return try emit(.atomic(.repetition(body, minimum: minimum, maximum: maximum, isPossessive: false)))
        }
        for _ in 0..<minimum { try emit(body) }
        if let maximum {
            try emitOptional(body, count: maximum - minimum)
        } else if case .set(let set) = body {
            let number = index(of: set)
            try append(.run(set: number, slot: slotCount, isPossessive: isPossessive))
            slotCount += 1
        } else {
            let split = program.count
            try append(.accept)
            let memo = newMemo()
            try emit(body)
            try append(.jump(split))
            program[split] = .split(first: split + 1, second: program.count, memo: memo)
        }
    }

    private mutating func emitOptional(_ body: PatternNode, count: Int) throws(PatternSyntaxError) {
        var splits: [(at: Int, memo: Int)] = []
        for _ in 0..<count {
            splits.append((program.count, newMemo()))
            try append(.accept)
            try emit(body)
        }
        for split in splits {
            program[split.at] = .split(first: split.at + 1, second: program.count, memo: split.memo)
        }
    }
}

extension PatternNode {
    fileprivate var isSet: Bool { if case .set = self { true } else { false } }
}
