/// Matches a pattern against one text and remembers which places have failed.
struct PatternMatcher {
    private let pattern: Pattern
    private let program: UnsafeBufferPointer<Pattern.Instruction>
    private let asciiSets: UnsafeBufferPointer<Pattern.ASCIISet>
    private let text: UnsafeBufferPointer<UInt8>
    /// One bit for each memo and place of the text.
    private var failed: [UInt64]
    /// For each run, a range of places from which it is known to fail.
    private var failedRuns: [Range<Int>]
    /// Alternatives that wait.
    private var choices: [Choice] = []
    /// Bits of `failed` that were set on the way to the current place: they have not failed yet.
    private var trail: [Int] = []

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

    private init(
        _ pattern: Pattern, _ program: UnsafeBufferPointer<Pattern.Instruction>,
        _ asciiSets: UnsafeBufferPointer<Pattern.ASCIISet>, _ text: UnsafeBufferPointer<UInt8>
    ) {
        self.pattern = pattern
        self.program = program
        self.asciiSets = asciiSets
        self.text = text
        failed = [UInt64](repeating: 0, count: (pattern.memoCount * (text.count + 1) + 63) / 64)
        failedRuns = [Range<Int>](repeating: 0..<0, count: pattern.slotCount)
    }

    /// All matches, leftmost first, none overlapping; empty matches included, as Oniguruma's iteration reports them.
    static func matches(of pattern: Pattern, in text: UnsafeBufferPointer<UInt8>) -> [Range<Int>] {
        pattern.program.withUnsafeBufferPointer { program in
            pattern.asciiSets.withUnsafeBufferPointer { sets in
                var matcher = PatternMatcher(pattern, program, sets, text)
                return matcher.all()
            }
        }
    }

    private mutating func all() -> [Range<Int>] {
        var found: [Range<Int>] = []
        var start = 0
        var lastEnd = -1
        while start <= text.count {
            if let end = match(at: start) {
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

    /// The end of the match of the first alternative that matches at `start`.
    private mutating func match(at start: Int) -> Int? {
        let byte = start < text.count ? Int(text[start]) : 128
        for entry in pattern.viable[min(byte, 128)] {
            if let end = run(from: entry, at: start) { return end }
        }
        return nil
    }

    /// The end of the match of the program from `pc` at `position`.
    private mutating func run(from pc: Int, at position: Int) -> Int? {
        let base = (choices: choices.count, trail: trail.count)
        var pc = pc
        var position = position
        while true {
            var isAlive = true
            switch program[pc] {
            case .accept:
                for bit in trail[base.trail...] { failed[bit >> 6] &= ~(1 << UInt64(bit & 63)) }
                trail.removeSubrange(base.trail...)
                choices.removeSubrange(base.choices...)
                return position
            case .jump(let target): pc = target
            case .set(let set):
                let length = step(set, position)
                position += length
                pc += 1
                isAlive = length > 0
            case .split(let first, let second, let memo):
                isAlive = enterSplit(second, memo * (text.count + 1) + position, position)
                pc = first
            case .run(let set, let slot, let isPossessive):
                isAlive = enterRun(set, slot, isPossessive, pc, &position)
                pc += 1
            case .lineStart:
                isAlive = position == 0 || text[position - 1] == 0x0A
                pc += 1
            case .look(let end, let isNegative):
                isAlive = (run(from: pc + 1, at: position) == nil) == isNegative
                pc = end
            case .atomic(let end):
                if let reached = run(from: pc + 1, at: position) {
                    position = reached
                } else {
                    isAlive = false
                }
                pc = end
            }
            if !isAlive, !backtrack(base.choices, &pc, &position) {
                trail.removeSubrange(base.trail...)
                return nil
            }
        }
    }

    /// The length of the scalar at `position` if it is in the set, else 0.
    @inline(__always)
    private func step(_ set: Int, _ position: Int) -> Int {
        guard position < text.count else { return 0 }
        let byte = text[position]
        if byte < 0x80 { return asciiSets[set].contains(byte) ? 1 : 0 }
        let (scalar, length) = UTF8Text.scalar(in: text, at: position)
        return pattern.sets[set].contains(scalar) ? length : 0
    }

    private mutating func enterSplit(_ second: Int, _ bit: Int, _ position: Int) -> Bool {
        if failed[bit >> 6] >> UInt64(bit & 63) & 1 != 0 { return false }
        failed[bit >> 6] |= 1 << UInt64(bit & 63)
        trail.append(bit)
        choices.append(Choice(pc: second, position: position, trail: trail.count))
        return true
    }

    /// Takes as many scalars of the set as there are; leaves a choice to take fewer. False if it is known to fail.
    private mutating func enterRun(_ set: Int, _ slot: Int, _ isPossessive: Bool, _ pc: Int, _ position: inout Int) -> Bool {
        let known = failedRuns[slot]
        let start = position
        var length = step(set, position)
        if isPossessive {
            while length > 0 {
                position += length
                length = step(set, position)
            }
            return true
        }
        if known.contains(start) { return false }
        var failureEnd = -1
        while length > 0 {
            position += length
            if position == known.lowerBound, !known.isEmpty {
                // Whatever ends here or later is known to fail: only shorter runs can succeed.
                position = back(position)
                failureEnd = known.upperBound
                break
            }
            length = step(set, position)
        }
        if failureEnd < 0 { failureEnd = position + 1 }
        choices.append(
            Choice(pc: pc + 1, position: position, start: start, failureEnd: failureEnd, slot: slot, trail: trail.count))
        return true
    }

    private func back(_ position: Int) -> Int {
        var position = position - 1
        while position > 0, text[position] & 0xC0 == 0x80 { position -= 1 }
        return position
    }

    /// Goes to the newest choice that is left; false if there is none.
    private mutating func backtrack(_ base: Int, _ pc: inout Int, _ position: inout Int) -> Bool {
        while choices.count > base {
            let top = choices.count - 1
            let choice = choices[top]
            if trail.count > choice.trail { trail.removeSubrange(choice.trail...) }
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
            // The run failed with every length, so it fails from every place in between.
            failedRuns[choice.slot] = choice.start..<choice.failureEnd
        }
        return false
    }
}
