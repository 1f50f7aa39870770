import Foundation
import NibbleCore
import NibbleModels
import NibbleServing
import Synchronization

/// An executor whose cache holds tokens and their positions. The token it chooses is a hash of all that it reads through the
/// row's block table, of the slot's seed and of the counter: a wrong block anywhere gives a wrong text.
///
/// A log probability is the token's negative. Temperatures below zero stand for faults: −1 fails `begin`, −2 chooses nothing.
final class ShadowModel: StepRunning {
    struct Failure: Error, CustomStringConvertible {
        var description: String
    }

    let slots: Int
    let chunkTokens: Int
    let tables: [CacheTable]
    let context: Int
    let vocabularySize = ShadowModel.vocabulary
    let sharesPrefixes: Bool
    static let vocabulary = 50
    private static let blockSize = KeyValueGeometry.blockSize

    /// What the tests see and set from outside.
    let control: Control
    private var cells: [Cell]
    private var records: [Slot?]

    final class Control: Sendable {
        /// What was wrong in any step.
        let faults = Mutex<[String]>([])
        /// The step with this number fails.
        let failingStep = Atomic<Int>(-1)
        let steps = Atomic<Int>(0)
        /// While it holds, every step waits for a signal.
        let gate = DispatchSemaphore(value: 0)
        let isGated = Atomic<Bool>(false)

        func open() {
            isGated.store(false, ordering: .sequentiallyConsistent)
            gate.signal()
        }
    }

    private struct Cell {
        var token: Int32 = -1
        var position = -1
    }

    private struct Slot {
        var settings: SlotSettings
        var chosen: [Int32]
        var mask: [Int32]?
    }

    init(slots: Int, context: Int, blocks: Int, chunk: Int = 64, sharesPrefixes: Bool = true, _ control: Control) {
        self.slots = slots
        self.context = context
        tables = [CacheTable(blockCount: blocks)]
        chunkTokens = chunk
        self.sharesPrefixes = sharesPrefixes
        self.control = control
        cells = Array(repeating: Cell(), count: blocks * Self.blockSize)
        records = Array(repeating: nil, count: slots)
    }

    func begin(slot: Int, _ settings: SlotSettings) throws {
        records[slot] = Slot(settings: settings, chosen: settings.generated)
        if settings.selection.temperature == -1 { throw Failure(description: "the record cannot be written") }
    }

    func setMask(_ words: UnsafeBufferPointer<Int32>, slot: Int) throws { records[slot]?.mask = Array(words) }

    func step(_ plan: StepPlan, beforeChoosing: (() -> Void)?) throws -> [StepAnswer] {
        if control.isGated.load(ordering: .sequentiallyConsistent) { control.gate.wait() }
        let number = control.steps.add(1, ordering: .sequentiallyConsistent).oldValue
        if number == control.failingStep.load(ordering: .sequentiallyConsistent) {
            throw Failure(description: "the device is gone")
        }
        for copy in plan.copies {
            for offset in 0..<Self.blockSize {
                cells[Int(copy.target) * Self.blockSize + offset] = cells[Int(copy.source) * Self.blockSize + offset]
            }
        }
        for row in plan.rows {
            for (offset, token) in plan.tokens[row.tokens].enumerated() {
                cells[cell(row.start + offset, row, plan)] = Cell(token: token, position: row.start + offset)
            }
        }
        beforeChoosing?()
        return plan.rows.compactMap { row in
            let tokens = read(row, plan)
            return row.wantsToken ? choose(tokens, row) : nil
        }
    }

    private func cell(_ position: Int, _ row: StepPlan.Row, _ plan: StepPlan) -> Int {
        Int(Array(plan.blocks(of: row))[position / Self.blockSize]) * Self.blockSize + position % Self.blockSize
    }

    private func read(_ row: StepPlan.Row, _ plan: StepPlan) -> [Int32] {
        (0..<row.start + row.tokens.count).map { position in
            let cell = cells[cell(position, row, plan)]
            if cell.position != position { report("slot \(row.slot) reads position \(cell.position) at \(position)") }
            return cell.token
        }
    }

    private func choose(_ tokens: [Int32], _ row: StepPlan.Row) -> StepAnswer {
        guard let record = records[row.slot] else {
            report("nothing began in slot \(row.slot)")
            return StepAnswer(token: 0)
        }
        let settings = record.settings
        if tokens != settings.prompt + record.chosen { report("slot \(row.slot) was not told of its tokens") }
        if row.counter != record.chosen.count { report("slot \(row.slot) has the counter \(row.counter)") }
        if settings.selection.temperature == -2 { return StepAnswer(token: -1) }
        let token = ShadowText.choose(tokens, settings.selection, mask: settings.selection.usesMask ? record.mask ?? [] : nil)
        records[row.slot]?.chosen.append(token)
        let scores = settings.logProbabilities.map { count in
            TokenScores(
                chosen: -Float(token), top: (0..<Int32(count)).map { TokenScore(token: $0, logProbability: -Float($0)) })
        }
        return StepAnswer(token: token, scores: scores)
    }

    private func report(_ fault: String) { control.faults.withLock { $0.append(fault) } }
}

/// What a ``ShadowModel`` must answer, computed alone and from the start.
enum ShadowText {
    static func choose(_ tokens: [Int32], _ selection: SlotSelection, mask: [Int32]?) -> Int32 {
        var hash = mixed(selection.seed &+ selection.stream &* 0x9E37)
        for token in tokens { hash = mixed(hash ^ UInt64(UInt32(bitPattern: token))) }
        guard let mask else { return Int32(hash % UInt64(ShadowModel.vocabulary)) }
        let allowed = (0..<ShadowModel.vocabulary).filter { mask.count > $0 / 32 && mask[$0 / 32] >> ($0 % 32) & 1 == 1 }
        return allowed.isEmpty ? -1 : Int32(allowed[Int(hash % UInt64(allowed.count))])
    }

    /// - Parameter mask: of the next token, after those chosen.
    static func answer(
        _ submission: Submission, choice: Int = 0, capacity: Int = .max, mask: (([Int32]) -> [Int32])? = nil
    ) -> [Int32] {
        let request = submission.request
        var selection = submission.selection
        selection.stream += UInt64(choice)
        var chosen: [Int32] = []
        while chosen.count < request.maxNewTokens, request.prompt.count + chosen.count < capacity {
            let token = choose(request.prompt + chosen, selection, mask: mask?(chosen))
            chosen.append(token)
            if request.stopTokens.contains(token) { break }
        }
        return chosen
    }
}

/// All that came of a request.
struct Collected: Sendable {
    var tokens: [[Int32]]
    var finishes: [ServingFinish?]
    var scores: [[TokenScores]]
    var cachedTokens: [Int?]
    var parts = 0

    init(choices: Int) {
        tokens = Array(repeating: [], count: choices)
        finishes = Array(repeating: nil, count: choices)
        scores = Array(repeating: [], count: choices)
        cachedTokens = Array(repeating: nil, count: choices)
    }

    /// Reads to the end, or until there are `limit` tokens of all answers together.
    static func from(_ answers: AnswerStream, choices: Int = 1, limit: Int = .max, pause: Duration = .zero) async throws
        -> Collected
    {
        var collected = Collected(choices: choices)
        while collected.tokens.reduce(0, { $0 + $1.count }) < limit, let parts = try await answers.next() {
            collected.parts += 1
            for part in parts {
                collected.tokens[part.choice] += part.tokens
                collected.scores[part.choice] += part.scores
                collected.finishes[part.choice] = part.finish
                if let cached = part.cachedTokens { collected.cachedTokens[part.choice] = cached }
            }
            if pause > .zero { try await Task.sleep(for: pause) }
        }
        return collected
    }
}
