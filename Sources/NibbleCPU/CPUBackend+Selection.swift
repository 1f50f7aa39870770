internal import CNibbleCPU
package import NibbleCore

extension CPUBackend {
    package func select(
        _ logits: Tensor, _ state: SelectionState, slots: Tensor, counters: Tensor, into tokens: Tensor
    ) throws {
        let rows = logits.count / max(logits.shape.last, 1)
        precondition(
            rows == 0 || logits.shape.last == state.vocabulary && min(slots.count, counters.count, tokens.count) >= rows,
            "selection of \(rows) tokens into \(tokens)")
        try pool.exclusively {
            var arguments = arguments(logits, state, slots, counters, tokens)
            let (greedy, sampled) = count(arguments, rows: rows)
            // Few rows of a large vocabulary: each thread takes a part of a row.
            arguments.skips_greedy = greedy > 0 && rows < pool.threadCount && state.vocabulary >= 32768
            if sampled > 0 {
                let bytes = nibble_select_floats(state.vocabulary) * MemoryLayout<Float>.size * pool.threadCount
                arguments.scratch = try operationScratch.bytes(bytes).assumingMemoryBound(to: Float.self)
            }
            pool.run(count: rows, isDynamic: true, arguments, nibble_slots_task)
            if arguments.skips_greedy { try chooseInParts(arguments, rows: rows) }
        }
    }

    package func fillTokens(_ tokens: Tensor, latest: Tensor) throws {
        let (ids, chosen) = (tokens.mutableIntegers, latest.integers)
        for index in 0..<tokens.count where ids[index] < 0 {
            let slot = -1 - Int(ids[index])
            ids[index] = slot < latest.count ? max(chosen[slot], 0) : 0
        }
    }

    package func scores(_ logits: Tensor, chosen: Tensor, count k: Int, values: Tensor, ids: Tensor) throws {
        let vocabulary = logits.shape.last
        let rows = logits.count / max(vocabulary, 1)
        precondition(
            k >= 0 && k <= SelectionState.scoreLimit && chosen.count >= rows && values.count >= rows * (2 + k)
                && ids.count >= rows * k, "scores of \(rows) rows into \(values)")
        let arguments = nibble_scores_arguments(
            kernels: pool.kernels, logits: logits.floats, chosen: chosen.integers, values: values.mutableFloats,
            ids: ids.mutableIntegers, vocabulary: vocabulary, k: k)
        pool.run(count: rows, isDynamic: true, arguments, nibble_scores_task)
    }

    /// How many rows choose greedily, and how many draw.
    private func count(_ arguments: nibble_slots_arguments, rows: Int) -> (greedy: Int, sampled: Int) {
        var (greedy, sampled) = (0, 0)
        for row in 0..<rows {
            let slot = Int(arguments.slots[row])
            guard slot >= 0 && slot < arguments.slot_count else { continue }
            if arguments.records[slot].temperature > 0 { sampled += 1 } else { greedy += 1 }
        }
        return (greedy, sampled)
    }

    private func chooseInParts(_ arguments: nibble_slots_arguments, rows: Int) throws {
        var arguments = arguments
        let words = (arguments.words + pool.threadCount - 1) / pool.threadCount
        let parts = (arguments.words + words - 1) / words
        arguments.part = 32 * words
        arguments.best = try operationScratch.bytes(parts * 4).assumingMemoryBound(to: Int32.self)
        for row in 0..<rows {
            let slot = Int(arguments.slots[row])
            guard slot >= 0 && slot < arguments.slot_count, !(arguments.records[slot].temperature > 0) else { continue }
            arguments.row = row
            pool.run(count: parts, arguments, nibble_slot_part_task)
            nibble_slot_parts_finish(&arguments, parts)
        }
    }

    private func arguments(
        _ logits: Tensor, _ state: SelectionState, _ slots: Tensor, _ counters: Tensor, _ tokens: Tensor
    ) -> nibble_slots_arguments {
        let buffers = state.buffers
        return nibble_slots_arguments(
            kernels: pool.kernels, logits: logits.mutableFloats, slots: slots.integers, counters: counters.integers,
            tokens: tokens.mutableIntegers,
            records: buffers.records.pointer.assumingMemoryBound(to: nibble_selection_record.self),
            bias_tokens: buffers.biasTokens.integers, bias_values: buffers.biasValues.floats,
            counts: buffers.counts.mutableIntegers, masks: buffers.masks.integers,
            latest: buffers.latest.mutableIntegers, slot_count: state.slots,
            vocabulary: state.vocabulary, words: SelectionState.words(state.vocabulary),
            bias_limit: SelectionState.biasLimit, scratch: nil, skips_greedy: false, row: 0, part: 0, best: nil)
    }
}
