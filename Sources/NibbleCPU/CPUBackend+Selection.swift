internal import CNibbleCPU
package import NibbleCore

extension CPUBackend {
    package func select(
        _ logits: Tensor, _ parameters: SamplingParameters, masks: SelectionMasks, counters: Tensor, into tokens: Tensor
    ) throws {
        let vocabulary = logits.shape.last
        let rows = logits.count / max(vocabulary, 1)
        guard rows > 0, vocabulary > 0 else { return }
        precondition(tokens.count >= rows && counters.count >= rows, "selection of \(rows) tokens into \(tokens)")
        try pool.exclusively {
            mask(logits, parameters, masks, rows: rows, vocabulary: vocabulary)
            if parameters.temperature > 0 {
                try sample(logits, parameters, counters, tokens, rows: rows, vocabulary: vocabulary)
            } else if rows >= pool.threadCount || vocabulary < 32768 {
                run(arguments(logits, parameters, counters, tokens, vocabulary), rows: rows)
            } else {
                try chooseInParts(logits, tokens, rows: rows, vocabulary: vocabulary)
            }
        }
    }

    private func mask(
        _ logits: Tensor, _ parameters: SamplingParameters, _ masks: SelectionMasks, rows: Int, vocabulary: Int
    ) {
        guard masks.seen != nil || masks.forbidden != nil else { return }
        let words = SelectionMasks.words(vocabulary)
        precondition((masks.seen?.count ?? rows * words) >= rows * words && (masks.forbidden?.count ?? words) >= words)
        let arguments = nibble_mask_arguments(
            logits: logits.mutableFloats, seen: masks.seen?.mutableIntegers, latest: masks.latest?.integers,
            forbidden: masks.forbidden?.integers, vocabulary: vocabulary, words: words, penalty: parameters.repetitionPenalty)
        pool.run(count: rows, arguments, nibble_mask_task)
    }

    private func sample(
        _ logits: Tensor, _ parameters: SamplingParameters, _ counters: Tensor, _ tokens: Tensor, rows: Int, vocabulary: Int
    ) throws {
        var arguments = arguments(logits, parameters, counters, tokens, vocabulary)
        let bytes = nibble_select_floats(vocabulary) * MemoryLayout<Float>.size * pool.threadCount
        arguments.scratch = try operationScratch.bytes(bytes).assumingMemoryBound(to: Float.self)
        run(arguments, rows: rows)
    }

    private func run(_ arguments: nibble_select_arguments, rows: Int) {
        pool.run(count: rows, isDynamic: true, arguments, nibble_select_task)
    }

    /// Greedy choice for fewer rows than threads over a large vocabulary: each thread takes a part of the row.
    private func chooseInParts(_ logits: Tensor, _ tokens: Tensor, rows: Int, vocabulary: Int) throws {
        let threads = pool.threadCount
        let part = (vocabulary + threads - 1) / threads
        let parts = (vocabulary + part - 1) / part
        let best = try operationScratch.bytes(parts * 4).assumingMemoryBound(to: Int32.self)
        for row in 0..<rows {
            let values = logits.floats + row * vocabulary
            let arguments = nibble_greedy_arguments(
                kernels: pool.kernels, logits: values, vocabulary: vocabulary, part: part, best: best)
            pool.run(count: parts, arguments, nibble_greedy_task)
            var winner: Int32 = NIBBLE_NO_TOKEN
            for challenger in UnsafeBufferPointer(start: best, count: parts) where winner != NIBBLE_NOT_A_NUMBER {
                if challenger == NIBBLE_NOT_A_NUMBER {
                    winner = challenger
                } else if challenger >= 0, winner < 0 || values[Int(challenger)] > values[Int(winner)] {
                    winner = challenger
                }
            }
            tokens.mutableIntegers[row] = winner
        }
    }

    private func arguments(
        _ logits: Tensor, _ parameters: SamplingParameters, _ counters: Tensor, _ tokens: Tensor, _ vocabulary: Int
    ) -> nibble_select_arguments {
        nibble_select_arguments(
            kernels: pool.kernels, logits: logits.floats, tokens: tokens.mutableIntegers, counters: counters.integers,
            vocabulary: vocabulary,
            temperature: parameters.temperature, top_p: parameters.topP, min_p: parameters.minP,
            top_k: max(parameters.topK, 0), seed: parameters.seed, first_stream: parameters.firstStream, scratch: nil)
    }
}
