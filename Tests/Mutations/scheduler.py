"""Breaks the block pool and the scheduler, one fault at a time, and tells which faults the tests notice.

Run by hand, in a clean checkout: python3 Tests/Mutations/scheduler.py [NUMBER ...]
Each fault is a replacement of text in one file. The tests of NibbleServing and BlockPoolTests run after each; the file is
restored. At least 38 of the 40 must be noticed.
"""

import os
import subprocess
import sys

CACHE = "Sources/NibbleModels/Cache/"
SERVING = "Sources/NibbleServing/"

FAULTS = [
    # The pool.
    (CACHE + "BlockPool.swift", "- sequence.blocks.count + (mustCopyLast(of: sequence) ? 1 : 0)", "- sequence.blocks.count",
     "the copy of a shared block is not counted"),
    (CACHE + "BlockPool.swift", "<= availableCount else { return nil }", "<= availableCount + 1 else { return nil }",
     "one block more is promised than there is"),
    (CACHE + "BlockPool.swift", "if count > 0, mustCopyLast(of: sequence), let last", "if count > 1, mustCopyLast(of: sequence), let last",
     "a single token is written into a shared block"),
    (CACHE + "BlockPool.swift", "            releaseBlock(last)\n", "", "the copied block keeps its reference"),
    (CACHE + "BlockPool.swift", "        for block in sequence.blocks { references[Int(block)] += 1 }\n        return sequence",
     "        return sequence", "a fork takes no references"),
    (CACHE + "BlockPool.swift", "return references[Int(last)] > 1 || index.contains(last)", "return references[Int(last)] > 1",
     "a known block is overwritten if nobody else holds it"),
    (CACHE + "BlockPool.swift", "return references[Int(last)] > 1 || index.contains(last)", "return index.contains(last)",
     "a fork's block is overwritten"),
    (CACHE + "BlockPool.swift", "let limit = tokens.count - 1", "let limit = tokens.count", "the whole prompt is adopted"),
    (CACHE + "BlockPool.swift", "        for block in sequence.blocks { retain(block) }\n", "", "adopted blocks take no references"),
    (CACHE + "BlockPool.swift", "            sequence.entries.append(index.entry(of: block))\n        }\n        guard",
     "        }\n        guard", "adopted blocks do not move the place in the index"),
    (CACHE + "BlockPool.swift", "            sequence.length += count\n        }\n        return sequence",
     "            sequence.length += count + 1\n        }\n        return sequence", "one token too many of a partly equal block"),
    (CACHE + "BlockPool.swift", "        index.remove(block)\n        references[Int(block)] = 1", "        references[Int(block)] = 1",
     "a block that is given away stays known"),
    (CACHE + "BlockPool.swift", "if references[Int(block)] == 0 { unreferenced.remove(block) }", "",
     "a block in use can be given away"),
    (CACHE + "BlockPool.swift", "guard references[Int(block)] == 0 else { return }\n        if index",
     "guard references[Int(block)] <= 1 else { return }\n        if index", "a block is freed while one sequence holds it"),
    (CACHE + "BlockPool.swift", "while sequence.blocks.count > blocks(for: length)", "while sequence.blocks.count > blocks(for: length) + 1",
     "a truncated sequence keeps a block"),
    (CACHE + "BlockPool.swift", "        sequence.entries.removeLast(max(sequence.entries.count - length / blockSize, 0))\n", "",
     "a truncated sequence stays at its old place in the index"),
    (CACHE + "BlockPool.swift", "while let block = sequence.blocks.popLast()", "while let block = sequence.blocks.isEmpty ? nil : sequence.blocks.removeFirst()",
     "chains are given away from their beginning"),
    (CACHE + "BlockPool.swift", "while (sequence.entries.count + 1) * blockSize <= sequence.length", "while sequence.entries.count * blockSize < sequence.length && (sequence.entries.count + 1) * blockSize <= tokens.count",
     "a block becomes known before it is full"),
    (CACHE + "PrefixIndex.swift", "predecessors[Int(block)] == predecessor && held", "held", "the beginning is not compared, only hashed"),
    (CACHE + "PrefixIndex.swift", "        hash = (hash ^ predecessor) &* 0x100_0000_01B3\n", "", "the beginning is not hashed"),
    (CACHE + "PrefixIndex.swift", "if count > best?.count ?? 0", "if count >= best?.count ?? 0", "a block that begins with nothing is found"),
    (CACHE + "PrefixIndex.swift", "        entries[Int(block)] = 0\n", "", "a removed block keeps its entry"),
    (CACHE + "SequenceBlocks.swift", "1 << 63 | UInt64(number)", "1 << 63", "roots are one"),
    (CACHE + "BlockQueue.swift", "        previous[Int(next[Int(block)])] = previous[Int(block)]\n", "", "a link of the queue is not mended"),
    # The scheduler.
    (SERVING + "Scheduler.swift", "        pool.release(&sequence.cache)\n        if let slot", "        if let slot",
     "a sequence that ends keeps its blocks"),
    (SERVING + "Scheduler.swift", "        freeSlots += sequence.forkSlots\n", "", "slots kept for choices are lost"),
    (SERVING + "Scheduler.swift", "sequence.choice...sequence.choice + sequence.pendingForks", "sequence.choice...sequence.choice", "choices that never began never end"),
    (SERVING + "SchedulerLimits.swift", "request.prompt.count < capacity", "request.prompt.count <= capacity", "a prompt fills the context"),
    (SERVING + "Scheduler+Planning.swift", "if needed + running.count <= pool", "if needed <= pool",
     "no block is left for the rows that run"),
    (SERVING + "Scheduler+Planning.swift", "waiting.charge(sequence.request.client, sequence.tokens.count - cache.length)", "",
     "prompts are not charged to their client"),
    (SERVING + "Scheduler+Planning.swift", "next.pendingForks < freeSlots.count", "next.pendingForks <= freeSlots.count",
     "a slot too few for the choices"),
    (SERVING + "WaitingRequests.swift", "let served = clients[place].served", "let served = 0",
     "clients are served in the order of arrival"),
    (SERVING + "Scheduler+Planning.swift", "        running[index].pendingForks = 0\n", "", "choices are copied again and again"),
    (SERVING + "Scheduler+Planning.swift", "running.indices.suffix(from: index + 1)", "running.indices.suffix(from: 0)",
     "the oldest can be preempted"),
    (SERVING + "Scheduler+Planning.swift", "!step.contains { $0.slot == running[candidate].slot }", "true",
     "a row of the step can be preempted"),
    (SERVING + "Scheduler+Planning.swift", "max(budget / 2, 1) : budget", "budget : budget", "the oldest prompt gets everything"),
    (SERVING + "Scheduler+Planning.swift", "            running[index].overtakings += 1\n", "", "overtaking is not counted"),
    (SERVING + "Scheduler+Planning.swift", "- decoding\n        return min(max(tokens / 32 * 32, 32), room)", "- decoding\n        return room",
     "prompts ignore the target time"),
    (SERVING + "Scheduler+Completion.swift", "            pool.index(&running[index].cache, tokens: running[index].tokens)\n", "",
     "no prefix is ever known"),
    (SERVING + "Scheduler+Completion.swift", "running[index].chosenCount == running[index].request.maxNewTokens", "running[index].chosenCount > running[index].request.maxNewTokens",
     "an answer is a token too long"),
]

TEST = ["swift", "test", "-c", "release", "--disable-testable-imports", "--filter", "NibbleServingTests|BlockPoolTests"]


def notices(path, old, new):
    with open(path) as file:
        text = file.read()
    if old not in text:
        return "the text to replace is not there"
    try:
        with open(path, "w") as file:
            file.write(text.replace(old, new, 1))
        try:
            result = subprocess.run(os.environ.get("NIBBLE_TEST_COMMAND", "").split() or TEST, capture_output=True, text=True, timeout=600)
        except subprocess.TimeoutExpired:
            return "noticed (hangs)"
        if "error:" in result.stderr + result.stdout and "Test run" not in result.stdout:
            return "does not compile, or crashes: " + [l for l in (result.stderr + result.stdout).splitlines() if "error" in l][0][:120]
        return "noticed" if result.returncode else "NOT NOTICED"
    finally:
        with open(path, "w") as file:
            file.write(text)


if __name__ == "__main__":
    chosen = [int(number) for number in sys.argv[1:]] or range(1, len(FAULTS) + 1)
    answers = []
    for number in chosen:
        path, old, new, name = FAULTS[number - 1]
        answer = notices(path, old, new)
        answers.append(answer)
        print(f"{number:3} {answer:12} {name}", flush=True)
    print(f"{sum(a.startswith('noticed') for a in answers)} of {len(answers)} faults noticed")
