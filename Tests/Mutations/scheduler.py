"""Breaks the block pool and the scheduler, one fault at a time, and tells whether the test that is there for it notices.

Run by hand, in a clean checkout: python3 Tests/Mutations/scheduler.py [NUMBER ...]
A fault is a replacement of text in one file, which is restored afterwards. NIBBLE_TEST_COMMAND replaces `swift test` and its
options. All but two of the faults must be noticed.
"""

import os
import signal
import subprocess
import sys

CACHE = "Sources/NibbleModels/Cache/"
SERVING = "Sources/NibbleServing/"
POOL, INDEX, KIND = CACHE + "BlockPool.swift", CACHE + "PrefixIndex.swift", CACHE + "CacheKind.swift"
REFERENCES, QUEUE, SEQUENCE = CACHE + "BlockReferences.swift", CACHE + "BlockQueue.swift", CACHE + "SequenceBlocks.swift"
SCHEDULER, PLANNING = SERVING + "Scheduler.swift", SERVING + "Scheduler+Planning.swift"
COMPLETION, LIMITS, WAITING = SERVING + "Scheduler+Completion.swift", SERVING + "SchedulerLimits.swift", SERVING + "WaitingRequests.swift"
RANDOM = "SchedulerRandomTests/randomEvents"

# The file, the fault, the text that it replaces, what with, the test that must fail.
FAULTS = [
    (POOL, "the copy of a shared block is not counted",
     "            + (mustCopyLast(of: sequence, writingFrom: first, table: table) ? 1 : 0)\n", "", "BlockPoolTests/fork"),
    (POOL, "one block more is promised than there is", "<= references[$0].availableCount\n", "<= references[$0].availableCount + 1\n",
     "BlockPoolTests/refusal"),
    (POOL, "only the first table has to have room", "tables.indices.allSatisfy {\n            blocksNeeded",
     "tables.indices.prefix(1).allSatisfy {\n            blocksNeeded", RANDOM),
    (POOL, "a single token is written into a shared block", "            if mustCopyLast(of: sequence, writingFrom: first, table: table),\n",
     "            if count > 1, mustCopyLast(of: sequence, writingFrom: first, table: table),\n", "BlockPoolTests/fork"),
    (POOL, "the copied block keeps its reference", "            releaseBlock(last, table)\n        } else", "        } else",
     "BlockPoolTests/fork"),
    (POOL, "a block that is copied is given out in the same step", "            copied.append((table, last))\n",
     "            releaseBlock(last, table)\n", "CacheKindTests/copiesAtOnce"),
    (POOL, "copied blocks are never given back", "        for (table, block) in copied { releaseBlock(block, table) }\n", "", RANDOM),
    (POOL, "a fork takes no references", "            for block in blocks where block != SequenceBlocks.noBlock { references[table].retain(block) }\n",
     "", "BlockPoolTests/fork"),
    (POOL, "a fork does not hold its chain", "        index.hold(sequence.place)\n        return sequence", "        return sequence", RANDOM),
    (POOL, "a known block is overwritten if nobody else holds it",
     "return references[table].count(last) > 1 || index.contains(last, table: table)", "return references[table].count(last) > 1",
     "SchedulerRuleTests/prefix"),
    (POOL, "a fork's block is overwritten", "return references[table].count(last) > 1 || index.contains(last, table: table)",
     "return index.contains(last, table: table)", "BlockPoolTests/fork"),
    (POOL, "the whole prompt is adopted", "let limit = tokens.count - 1", "let limit = tokens.count", "BlockPoolTests/adoption"),
    (POOL, "adopted blocks take no references", "            for block in blocks { references[table].retain(block) }\n", "", RANDOM),
    (POOL, "an adopted sequence starts at the beginning of the chains", "        if let last = prefix.nodes.last { move(&sequence, to: .node(last)) }\n",
     "", RANDOM),
    (POOL, "one token too many of a partly equal block", "prefix.length += count\n", "prefix.length += count + 1\n", "BlockPoolTests/adoption"),
    (POOL, "a part of a block is adopted with a state", "!tables.contains(where: { $0.kind == .state })", "!tables.isEmpty", RANDOM),
    (POOL, "a state becomes known that a step left behind within a block",
     "guard tables[table].kind != .state || end == sequence.length else { continue }", "", "CacheKindTests/states"),
    (POOL, "a prefix needs no blocks of a window", "if runs.indices.allSatisfy({ runs[$0] >= nodes.count - firstRead(at: length, table: $0) }) {",
     "do {", "CacheKindTests/windowedPrefix"),
    (POOL, "a gap in a window does not count", "== nil ? 0 : runs[table] + 1", "== nil ? runs[table] : runs[table] + 1", RANDOM),
    (POOL, "what a window passed is kept", "            while sequence.firstHeld[table] < min(first, sequence.tables[table].count) {\n",
     "            while false, sequence.firstHeld[table] < min(first, sequence.tables[table].count) {\n", "CacheKindTests/bound"),
    (POOL, "a truncated sequence keeps a block", "while sequence.tables[table].count > blocks(for: length)",
     "while sequence.tables[table].count > blocks(for: length) + 1", "BlockPoolTests/truncation"),
    (POOL, "a truncated sequence stays at its old place in the index", "            move(&sequence, to: index.predecessor(of: sequence.place))\n", "",
     "BlockPoolTests/truncation"),
    (POOL, "chains are given away from their beginning", "while let block = sequence.tables[table].popLast()",
     "while let block = sequence.tables[table].isEmpty ? nil : sequence.tables[table].removeFirst()", "BlockPoolTests/eviction"),
    (POOL, "a block becomes known before it is full", "while (sequence.knownBlocks + 1) * blockSize <= sequence.length",
     "while sequence.knownBlocks * blockSize < sequence.length && (sequence.knownBlocks + 1) * blockSize <= tokens.count", RANDOM),
    (POOL, "a block that is given away stays known", "        index.forget(block, table: table)\n", "", RANDOM),
    (KIND, "a window is one position too narrow", "max(length - window + 1, 0) / blockSize", "max(length - window + 2, 0) / blockSize",
     "CacheKindTests/bound"),
    (INDEX, "the beginning is not compared, only hashed", "nodes[Int(node)].predecessor == place,\n            held", "held", RANDOM),
    (INDEX, "the beginning is not hashed", "        hash = (hash ^ UInt64(bitPattern: place.number)) &* 0x100_0000_01B3\n", "",
     "BlockPoolTests/chains"),
    (INDEX, "a part is found of a block that a table has lost",
     "        where (0..<tableCount).allSatisfy({ block(of: node, table: $0) != nil }) {\n", "        {\n", RANDOM),
    (INDEX, "a removed text is still found by its hash", "        if nodesByHash[hash] == node { nodesByHash[hash] = nil }\n", "", RANDOM),
    (INDEX, "chains are never forgotten", "            place = nodes[Int(node)].predecessor\n            remove(node)\n", "            return\n",
     "CacheKindTests/forgotten"),
    (SEQUENCE, "roots are one", "{ .root(number) }", "{ .root(0) }", "BlockPoolTests/chains"),
    (REFERENCES, "a block in use can be given away", "        if counts[Int(block)] == 0 { cached.remove(block) }\n", "", RANDOM),
    (REFERENCES, "a block is freed while one sequence holds it", "guard counts[Int(block)] == 0 else", "guard counts[Int(block)] <= 1 else", RANDOM),
    (QUEUE, "a link of the queue is not mended", "        previous[Int(next[Int(block)])] = previous[Int(block)]\n", "", RANDOM),
    (SCHEDULER, "a sequence that ends keeps its blocks", "        pool.release(&sequence.cache)\n        if let slot", "        if let slot",
     "SchedulerRuleTests/oneRequest"),
    (SCHEDULER, "slots kept for choices are lost", "        freeSlots += sequence.forkSlots\n", "", RANDOM),
    (SCHEDULER, "choices that never began never end", "sequence.choice...sequence.choice + sequence.pendingForks",
     "sequence.choice...sequence.choice", RANDOM),
    (LIMITS, "a prompt fills the context", "request.prompt.count < capacity", "request.prompt.count <= capacity", "SchedulerRuleTests/refusals"),
    (PLANNING, "no block is left for the rows that run", "spare: running.count + sequence.pendingForks", "spare: 0",
     "SchedulerRuleTests/reservedBlocks"),
    (PLANNING, "equal beginnings are computed side by side", "guard missing > 0, shared", "guard missing > prompt.tokens.count, shared",
     "SchedulerRuleTests/simultaneousPrefix"),
    (PLANNING, "prompts are not charged to their client",
     "            waiting.charge(sequence.request.client, sequence.tokens.count - cache.length)\n", "", "SchedulerRuleTests/fairnessOfPrompts"),
    (PLANNING, "a slot too few for the choices", "next.pendingForks < freeSlots.count", "next.pendingForks <= freeSlots.count", RANDOM),
    (PLANNING, "choices are copied again and again", "        running[index].pendingForks = 0\n", "", "SchedulerRuleTests/choices"),
    (PLANNING, "the oldest can be preempted", "running.indices.suffix(from: index + 1)", "running.indices.suffix(from: 0)", RANDOM),
    (PLANNING, "a row of the step can be preempted", "!step.contains { $0.slot == running[candidate].slot }", "true", RANDOM),
    (PLANNING, "the oldest prompt loses its cache to rows that decode", "index == 0, plan.rows.isEmpty {", "index == 0 {",
     "SchedulerRuleTests/patience"),
    (PLANNING, "the oldest prompt gets everything", "max(budget / 2, 1) : budget", "budget : budget", "SchedulerRuleTests/shares"),
    (PLANNING, "overtaking is not counted", "            running[index].overtakings += 1\n", "", "SchedulerRuleTests/overtaking"),
    (PLANNING, "prompts ignore the target time", "return min(max(tokens / 32 * 32, 32), room)", "return room", "SchedulerRuleTests/budget"),
    (COMPLETION, "no prefix is ever known", "            pool.index(&running[index].cache, tokens: running[index].tokens)\n", "",
     "SchedulerRuleTests/prefix"),
    (COMPLETION, "an answer is a token too long", "running[index].chosenCount == running[index].request.maxNewTokens",
     "running[index].chosenCount > running[index].request.maxNewTokens", "SchedulerRuleTests/oneRequest"),
    (WAITING, "clients are served in the order of arrival", "let served = clients[place].served", "let served = 0",
     "SchedulerRuleTests/fairness"),
]

COMMAND = os.environ.get("NIBBLE_TEST_COMMAND", "swift test -c release --disable-testable-imports").split()


def answer(path, old, new, test):
    with open(path) as file:
        text = file.read()
    if old not in text:
        return "the text to replace is not there"
    try:
        with open(path, "w") as file:
            file.write(text.replace(old, new, 1))
        process = subprocess.Popen(
            COMMAND + ["--filter", test + r"\("], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)
        output, _ = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        # The tests are a process of their own, which outlives `swift test`.
        os.killpg(process.pid, signal.SIGKILL)
        return "noticed (hangs)"
    finally:
        with open(path, "w") as file:
            file.write(text)
    if "Test run started" not in output:
        return "does not compile"
    return "noticed" if process.returncode else "NOT NOTICED"


def main():
    if subprocess.run(COMMAND + ["--filter", "|".join(sorted({fault[4] for fault in FAULTS}))], capture_output=True).returncode:
        sys.exit("the tests fail without a fault")
    answers = []
    for number in [int(number) for number in sys.argv[1:]] or range(1, len(FAULTS) + 1):
        path, fault, old, new, test = FAULTS[number - 1]
        answers.append(answer(path, old, new, test))
        print(f"{number:3} {answers[-1]:12} {fault} ({test})", flush=True)
    print(f"{sum(a.startswith('noticed') for a in answers)} of {len(answers)} faults noticed")


if __name__ == "__main__":
    main()
