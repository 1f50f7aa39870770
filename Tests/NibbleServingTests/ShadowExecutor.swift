import NibbleModels
import NibbleServing

/// A stand-in for a model whose cache remembers, instead of keys and values, what they depend on: at each position the hash of all
/// tokens up to there, and of what else the cache depends on. A row that reads anything but its own past is found at once, in
/// every table: all of it, the last positions of a window, or the state that its last step left.
struct ShadowExecutor {
    private let blockSize: Int
    private let tables: [CacheTable]
    /// By table. A state lies in its block's first cell.
    private var cells: [[UInt64]]

    init(tables: [CacheTable], blockSize: Int) {
        self.tables = tables
        self.blockSize = blockSize
        cells = tables.map { Array(repeating: 0, count: $0.blockCount * blockSize) }
    }

    /// Runs a step. `sequences` are what the rows' slots should hold.
    /// - Returns: what is wrong, if anything is.
    mutating func run(_ plan: StepPlan, _ sequences: [Int: ShadowSequence]) -> String? {
        if let fault = copy(plan.copies) { return fault }
        for row in plan.rows {
            guard let sequence = sequences[row.slot] else { return "nothing runs in slot \(row.slot)" }
            if let fault = feedFault(row, plan, sequence) { return fault }
        }
        // All rows run at once: what one reads before it writes must be there before any writes, and still be there afterwards.
        for table in tables.indices {
            for row in plan.rows {
                if let sequence = sequences[row.slot], let fault = readFault(table, row, plan, sequence, isDone: false) {
                    return fault
                }
            }
            for row in plan.rows {
                if let sequence = sequences[row.slot], let fault = write(table, row, plan, sequence) { return fault }
            }
            for row in plan.rows {
                if let sequence = sequences[row.slot], let fault = readFault(table, row, plan, sequence, isDone: true) {
                    return fault
                }
            }
        }
        return nil
    }

    /// All copies are made at once.
    private mutating func copy(_ copies: [BlockCopy]) -> String? {
        for copy in copies {
            if copies.contains(where: { $0.table == copy.table && $0.source == copy.target }) {
                return "block \(copy.target) of table \(copy.table) is copied and overwritten at once"
            }
            for offset in 0..<blockSize {
                cells[copy.table][Int(copy.target) * blockSize + offset] =
                    cells[copy.table][Int(copy.source) * blockSize + offset]
            }
        }
        return nil
    }

    private func feedFault(_ row: StepPlan.Row, _ plan: StepPlan, _ sequence: ShadowSequence) -> String? {
        let end = row.start + row.tokens.count
        guard end <= sequence.tokens.count, sequence.tokens[row.start..<end].elementsEqual(plan.tokens[row.tokens]) else {
            return "\(sequence.name) is fed \(plan.tokens[row.tokens]) at \(row.start)"
        }
        guard row.wantsToken == (end == sequence.tokens.count) || sequence.waitsForForks else {
            return "\(sequence.name) wants a token at \(end) of \(sequence.tokens.count)"
        }
        guard row.counter == sequence.chosenCount else { return "\(sequence.name) has counter \(row.counter)" }
        return nil
    }

    private mutating func write(_ table: Int, _ row: StepPlan.Row, _ plan: StepPlan, _ sequence: ShadowSequence) -> String? {
        let end = row.start + row.tokens.count
        for position in tables[table].kind == .state ? end - 1..<end : row.start..<end {
            guard let cell = cell(table, position, row, plan) else {
                return "\(sequence.name) has no block in table \(table) for position \(position)"
            }
            cells[table][cell] = sequence.hashes[position]
        }
        return nil
    }

    /// - Parameter isDone: whether the step has written.
    private func readFault(
        _ table: Int, _ row: StepPlan.Row, _ plan: StepPlan, _ sequence: ShadowSequence, isDone: Bool
    ) -> String? {
        let end = row.start + row.tokens.count
        var read = 0..<(isDone ? end : row.start)
        switch tables[table].kind {
        case .full: break
        case .window(let window): read = min(max(row.start - window + 1, 0), read.upperBound)..<read.upperBound
        case .state:
            let isOverwritten = row.start > 0 && (row.start - 1) / blockSize == (end - 1) / blockSize
            let first = isDone && (isOverwritten || row.start == 0) ? end - 1 : row.start - 1
            read = max(first, 0)..<max(first + 1, 0)
        }
        for position in read {
            guard let cell = cell(table, position, row, plan), cells[table][cell] == sequence.hashes[position] else {
                return "\(sequence.name) reads something else at position \(position) in table \(table)"
            }
        }
        return nil
    }

    private func cell(_ table: Int, _ position: Int, _ row: StepPlan.Row, _ plan: StepPlan) -> Int? {
        let blocks = plan.blocks(of: row, table: table)
        let place = blocks.startIndex + position / blockSize
        guard place < blocks.endIndex, blocks[place] != SequenceBlocks.noBlock else { return nil }
        return Int(blocks[place]) * blockSize + (tables[table].kind == .state ? 0 : position % blockSize)
    }
}

/// What a sequence should be, known without the scheduler: its tokens follow from its prompt, its root and its choice alone.
struct ShadowSequence {
    let name: String
    let promptCount: Int
    private let seed: UInt64
    private(set) var tokens: [Int32]
    /// Of the tokens up to each position.
    private(set) var hashes: [UInt64]
    /// The choice that the others are copied from feeds its prompt but for the last token.
    var waitsForForks: Bool

    /// Few different tokens, so that prompts share beginnings by chance, too.
    static let vocabulary: UInt64 = 5

    init(_ request: ServingRequest, id: RequestID, choice: Int) {
        name = "request \(id.number), choice \(choice)"
        promptCount = request.prompt.count
        seed = mixed(UInt64(request.root.number) &* 31 &+ 7)
        waitsForForks = request.choices > 1 && choice == 0
        self.choice = UInt64(choice)
        tokens = []
        hashes = []
        for token in request.prompt { append(token) }
    }

    private let choice: UInt64
    var chosenCount: Int { tokens.count - promptCount }
    var nextToken: Int32 { Int32(mixed((hashes.last ?? seed) &+ choice &* 0x9E37) % Self.vocabulary) }

    mutating func append(_ token: Int32) {
        tokens.append(token)
        hashes.append(mixed((hashes.last ?? seed) ^ UInt64(UInt32(bitPattern: token)) &* 0x1_0001))
    }
}

/// SplitMix64's output function.
func mixed(_ value: UInt64) -> UInt64 {
    var z = value &+ 0x9E37_79B9_7F4A_7C15
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
}

struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = mixed(seed) }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        return mixed(state)
    }
}
