import NibbleModels
import NibbleServing

/// A stand-in for a model whose cache remembers, instead of keys and values, what they depend on: at each position the hash of all
/// tokens up to there, and of what else the cache depends on. A row that reads anything but its own past is found at once.
struct ShadowExecutor {
    private let blockSize: Int
    private var cells: [UInt64]

    init(blockCount: Int, blockSize: Int) {
        self.blockSize = blockSize
        cells = Array(repeating: 0, count: blockCount * blockSize)
    }

    /// Runs a step. `sequences` are what the rows' slots should hold.
    /// - Returns: what is wrong, if anything is.
    mutating func run(_ plan: StepPlan, _ sequences: [Int: ShadowSequence]) -> String? {
        for copy in plan.copies {
            for offset in 0..<blockSize {
                cells[Int(copy.target) * blockSize + offset] = cells[Int(copy.source) * blockSize + offset]
            }
        }
        for row in plan.rows {
            guard let sequence = sequences[row.slot] else { return "nothing runs in slot \(row.slot)" }
            let end = row.start + row.tokens.count
            guard end <= sequence.tokens.count, sequence.tokens[row.start..<end].elementsEqual(plan.tokens[row.tokens]) else {
                return "\(sequence.name) is fed \(plan.tokens[row.tokens]) at \(row.start)"
            }
            guard row.wantsToken == (end == sequence.tokens.count) || sequence.waitsForForks else {
                return "\(sequence.name) wants a token at \(end) of \(sequence.tokens.count)"
            }
            guard row.counter == sequence.chosenCount else { return "\(sequence.name) has counter \(row.counter)" }
            for position in row.start..<end { cells[cell(position, row, plan)] = sequence.hashes[position] }
        }
        // Only now: a row that writes where another one reads is a fault.
        for row in plan.rows {
            guard let sequence = sequences[row.slot] else { continue }
            for position in 0..<row.start + row.tokens.count
            where cells[cell(position, row, plan)] != sequence.hashes[position] {
                return "\(sequence.name) reads something else at position \(position)"
            }
        }
        return nil
    }

    private func cell(_ position: Int, _ row: StepPlan.Row, _ plan: StepPlan) -> Int {
        Int(plan.blocks[row.blocks.lowerBound + position / blockSize]) * blockSize + position % blockSize
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
