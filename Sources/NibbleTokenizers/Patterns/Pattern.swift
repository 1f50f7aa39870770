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
        case lineStart
        case accept
    }

    /// The members of a set among the first 128 scalars.
    struct ASCIISet: Sendable {
        var low: UInt64 = 0
        var high: UInt64 = 0

        @inline(__always)
        func contains(_ byte: UInt8) -> Bool { (byte < 64 ? low >> UInt64(byte) : high >> UInt64(byte - 64)) & 1 != 0 }
    }

    static let maximumLength = 20_000

    let source: String
    private(set) var program: [Instruction] = []
    private(set) var sets: [ScalarSet] = []
    private(set) var asciiSets: [ASCIISet] = []
    private(set) var memoCount = 0
    private(set) var slotCount = 0
    /// Where the outermost alternatives start.
    private(set) var entries: [Int] = []
    /// For each ASCII byte, the entries that can match from it; 128: from anything else, the end included.
    private(set) var viable: [[Int]] = []

    init(_ source: String) throws(PatternSyntaxError) {
        self.source = source
        let tree = try PatternParser.parse(source).compiled()
        let branches = if case .alternatives(let branches) = tree { branches } else { [tree] }
        for branch in branches {
            entries.append(program.count)
            try emit(branch)
            try append(.accept)
        }
        viable = (0..<128).map { byte in
            zip(entries, branches).filter { $1.canStart(with: UInt32(byte)) }.map(\.0)
        }
        viable.append(entries)
        asciiSets = sets.map { set in
            var bits = ASCIISet()
            for value in UInt64(0)..<64 {
                if set.contains(UInt32(value)) { bits.low |= 1 << value }
                if set.contains(UInt32(value + 64)) { bits.high |= 1 << value }
            }
            return bits
        }
    }
}

extension PatternNode {
    /// Whether a match may begin where `scalar` is next.
    fileprivate func canStart(with scalar: UInt32) -> Bool { isNullable || mayTakeFirst(scalar) }

    /// Whether the node can match without taking a scalar.
    private var isNullable: Bool {
        switch self {
        case .set: false
        case .sequence(let parts): parts.allSatisfy(\.isNullable)
        case .alternatives(let branches): branches.contains(where: \.isNullable)
        case .repetition(let body, let minimum, _, _): minimum == 0 || body.isNullable
        case .atomic(let body): body.isNullable
        case .lookAhead, .lineStart: true
        }
    }

    private func mayTakeFirst(_ scalar: UInt32) -> Bool {
        switch self {
        case .set(let set): return set.contains(scalar)
        case .sequence(let parts):
            for part in parts {
                if part.mayTakeFirst(scalar) { return true }
                if !part.isNullable { return false }
            }
            return false
        case .alternatives(let branches): return branches.contains { $0.mayTakeFirst(scalar) }
        case .repetition(let body, _, _, _), .atomic(let body): return body.mayTakeFirst(scalar)
        case .lookAhead, .lineStart: return false
        }
    }

    /// The tree with its sets ready for look-ups.
    fileprivate func compiled() -> PatternNode {
        switch self {
        case .set(let set): .set(set.compiled())
        case .sequence(let parts): .sequence(parts.map { $0.compiled() })
        case .alternatives(let branches): .alternatives(branches.map { $0.compiled() })
        case .repetition(let body, let minimum, let maximum, let isPossessive):
            .repetition(body.compiled(), minimum: minimum, maximum: maximum, isPossessive: isPossessive)
        case .lookAhead(let body, let isNegative): .lookAhead(body.compiled(), isNegative: isNegative)
        case .atomic(let body): .atomic(body.compiled())
        case .lineStart: .lineStart
        }
    }

    fileprivate var isSet: Bool { if case .set = self { true } else { false } }
}

// MARK: - Compilation

extension Pattern {
    private mutating func append(_ instruction: Instruction) throws(PatternSyntaxError) {
        guard program.count < Self.maximumLength else { throw PatternSyntaxError(syntax: "the pattern is too large") }
        program.append(instruction)
    }

    private mutating func index(of set: ScalarSet) -> Int {
        sets.append(set)
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
        case .lineStart: try append(.lineStart)
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
        for _ in 0..<minimum {
            let start = program.count
            try emit(body)
            // A node without instructions matches the empty text, however often it is repeated.
            if program.count == start { return }
        }
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
