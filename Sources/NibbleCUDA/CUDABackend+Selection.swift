internal import CNibbleCUDA
package import NibbleCore

extension CUDABackend {
    package func select(
        _ logits: Tensor, _ state: SelectionState, slots: Tensor, counters: Tensor, into tokens: Tensor
    ) throws {
        try requireFloat32(logits, for: "select")
        try perform {
            let rows = logits.count / max(logits.shape.last, 1)
            precondition(
                rows == 0
                    || logits.shape.last == state.vocabulary && min(slots.count, counters.count, tokens.count) >= rows,
                "selection of \(rows) tokens into \(tokens)")
            let buffers = state.buffers
            let arguments = NibbleSelectArguments(
                logits: logits.pointer,
                largest: UInt64(try workspace.take(rows * Int(NIBBLE_SELECT_PARTS) * MemoryLayout<NibbleLargest>.size)),
                tokens: tokens.pointer, slots: slots.pointer, counters: counters.pointer, records: buffers.records.pointer,
                biasTokens: buffers.biasTokens.pointer, biasValues: buffers.biasValues.pointer,
                counts: buffers.counts.pointer, masks: buffers.masks.pointer, latest: buffers.latest.pointer,
                slotCount: Int32(state.slots),
                vocabulary: Int32(state.vocabulary), biasLimit: Int32(SelectionState.biasLimit), unused: 0)
            try launch(.selectLargest, grid: Grid(x: Int(NIBBLE_SELECT_PARTS), y: rows), block: 256, arguments)
            try launch(.select, grid: Grid(x: rows), block: 1024, arguments)
        }
    }

    package func fillTokens(_ tokens: Tensor, latest: Tensor) throws {
        try perform {
            let arguments = NibbleFillTokensArguments(
                tokens: tokens.pointer, latest: latest.pointer, count: Int32(tokens.count),
                slotCount: Int32(latest.count))
            try launch(.fillTokens, grid: Grid(x: blocks(tokens.count, per: 128)), block: 128, arguments)
        }
    }

    package func scores(_ logits: Tensor, chosen: Tensor, count k: Int, values: Tensor, ids: Tensor) throws {
        try requireFloat32(logits, for: "scores")
        try perform {
            let vocabulary = logits.shape.last
            let rows = logits.count / max(vocabulary, 1)
            precondition(
                k >= 0 && k <= SelectionState.scoreLimit && chosen.count >= rows && values.count >= rows * (2 + k)
                    && ids.count >= rows * k, "scores of \(rows) rows into \(values)")
            let arguments = NibbleScoresArguments(
                logits: logits.pointer, chosen: chosen.pointer, values: values.pointer, ids: ids.pointer,
                vocabulary: Int32(vocabulary), k: Int32(k))
            try launch(.scores, grid: Grid(x: rows), block: 1024, arguments)
        }
    }

    private func requireFloat32(_ logits: Tensor, for operation: String) throws {
        guard logits.dtype != .float32 else { return }
        throw BackendError.unsupported(device: device, operation: operation, reason: "logits are \(logits.dtype), not float32")
    }
}
