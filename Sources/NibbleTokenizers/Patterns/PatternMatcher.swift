/// Runs a pattern over one text; keeps what has failed where.
struct PatternMatcher {
    private let pattern: Pattern
    private let text: UnsafeBufferPointer<UInt8>
    /// One bit for each memo and place of the text.
    private var failed: [UInt64]
    /// For each run, a range of places from which it is known to fail.
    private var failedRuns: [Range<Int>]

    private struct Choice {
        /// Where to go on in the program.
        var pc: Int
        var position: Int
        /// For a run: where it started, the upper bound of the places it will then have failed from, and its slot; otherwise
        /// `slot` is −1.
        var start = 0
        var failureEnd = 0
        var slot = -1
        /// Length of the trail when the choice was made.
        var trail: Int
    }

    private init(_ pattern: Pattern, _ text: UnsafeBufferPointer<UInt8>) {
        self.pattern = pattern
        self.text = text
        failed = [UInt64](repeating: 0, count: (pattern.memoCount * (text.count + 1) + 63) / 64)
        failedRuns = [Range<Int>](repeating: 0..<0, count: pattern.slotCount)
    }

    /// All matches, leftmost first, none overlapping; empty matches included, as Oniguruma's iteration reports them.
    static func matches(of pattern: Pattern, in text: UnsafeBufferPointer<UInt8>) -> [Range<Int>] {
        var matcher = PatternMatcher(pattern, text)
        var found: [Range<Int>] = []
        var choices: [Choice] = []
        var start = 0
        var lastEnd = -1
        while start <= text.count {
            choices.removeAll(keepingCapacity: true)
            if let end = matcher.run(from: 0, at: start, &choices) {
                if end > start {
                    found.append(start..<end)
                    start = end
                    lastEnd = end
                    continue
                }
                if start != lastEnd { found.append(start..<start) }
            }
            guard start < text.count else { break }
            start += UTF8Text.length(ofLead: text[start])
        }
        return found
    }

    /// The end of the match of the program from `pc` at `position`.
    private mutating func run(from pc: Int, at position: Int, _ choices: inout [Choice]) -> Int? {
        let base = choices.count
        var pc = pc
        var position = position
        var trail: [Int] = []
        while true {
            var isAlive = true
            switch pattern.program[pc] {
            case .accept:
                for bit in trail { failed[bit >> 6] &= ~(1 << UInt64(bit & 63)) }
                choices.removeSubrange(base...)
                return position
            case .jump(let target): pc = target
            case .set(let set):
                if let length = step(set, position) {
                    position += length
                    pc += 1
                } else {
                    isAlive = false
                }
            case .split(let first, let second, let memo):
                let bit = memo * (text.count + 1) + position
                if failed[bit >> 6] >> UInt64(bit & 63) & 1 != 0 {
                    isAlive = false
                } else {
                    failed[bit >> 6] |= 1 << UInt64(bit & 63)
                    trail.append(bit)
                    choices.append(Choice(pc: second, position: position, trail: trail.count))
                    pc = first
                }
            case .run(let set, let slot, let isPossessive):
                isAlive = enterRun(set, slot, isPossessive, pc, &position, trail.count, &choices)
                pc += 1
            case .look(let end, let isNegative):
                isAlive = (run(from: pc + 1, at: position, &choices) == nil) == isNegative
                pc = end
            case .atomic(let end):
                if let reached = run(from: pc + 1, at: position, &choices) {
                    position = reached
                    pc = end
                } else {
                    isAlive = false
                }
            }
            if !isAlive, !backtrack(base, &pc, &position, &trail, &choices) { return nil }
        }
    }

    @inline(__always)
    private func step(_ set: Int, _ position: Int) -> Int? {
        guard position < text.count else { return nil }
        let (scalar, length) = UTF8Text.scalar(in: text, at: position)
        return pattern.sets[set].contains(scalar) ? length : nil
    }

    /// Takes as many scalars of the set as there are; leaves a choice to take fewer. False if it is known to fail.
    private mutating func enterRun(
        _ set: Int, _ slot: Int, _ isPossessive: Bool, _ pc: Int, _ position: inout Int, _ trail: Int, _ choices: inout [Choice]
    ) -> Bool {
        let known = failedRuns[slot]
        let start = position
        if isPossessive {
            while let length = step(set, position) { position += length }
            return true
        }
        if known.contains(start) { return false }
        var failureEnd = -1
        while let length = step(set, position) {
            position += length
            guard position == known.lowerBound, !known.isEmpty else { continue }
            // Whatever ends here or later is known to fail: only shorter runs can succeed.
            position = back(position)
            failureEnd = known.upperBound
            break
        }
        if failureEnd < 0 { failureEnd = position + 1 }
        choices.append(
            Choice(pc: pc + 1, position: position, start: start, failureEnd: failureEnd, slot: slot, trail: trail))
        return true
    }

    private func back(_ position: Int) -> Int {
        var position = position - 1
        while position > 0, text[position] & 0xC0 == 0x80 { position -= 1 }
        return position
    }

    /// Goes to the newest choice that is left; false if there is none.
    private mutating func backtrack(
        _ base: Int, _ pc: inout Int, _ position: inout Int, _ trail: inout [Int], _ choices: inout [Choice]
    ) -> Bool {
        while choices.count > base {
            let top = choices.count - 1
            let choice = choices[top]
            trail.removeSubrange(choice.trail...)
            guard choice.slot >= 0 else {
                choices.removeLast()
                pc = choice.pc
                position = choice.position
                return true
            }
            if choice.position > choice.start {
                position = back(choice.position)
                choices[top].position = position
                pc = choice.pc
                return true
            }
            choices.removeLast()
            // It failed with every length: it will from every place between, too.
            failedRuns[choice.slot] = choice.start..<choice.failureEnd
        }
        return false
    }
}
