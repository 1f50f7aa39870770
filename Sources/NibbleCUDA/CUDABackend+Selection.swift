internal import CNibbleCUDA
package import NibbleCore

extension CUDABackend {
    package func select(
        _ logits: Tensor, _ parameters: SamplingParameters, masks: SelectionMasks, counters: Tensor, into tokens: Tensor
    ) throws {
        guard logits.dtype == .float32 else {
            throw BackendError.unsupported(device: device, operation: "select", reason: "logits are \(logits.dtype), not float32")
        }
        try perform {
            let rows = tokens.count
            let vocabulary = logits.shape.last
            let arguments = NibbleSelectArguments(
                logits: logits.pointer,
                largest: UInt64(try workspace.take(rows * Int(NIBBLE_SELECT_PARTS) * MemoryLayout<NibbleLargest>.size)),
                tokens: tokens.pointer, counters: counters.pointer, seen: masks.seen.pointer,
                latest: masks.latest.pointer, forbidden: masks.forbidden.pointer, seed: parameters.seed,
                firstStream: parameters.firstStream, rows: Int32(rows), vocabulary: Int32(vocabulary),
                topK: Int32(clamping: parameters.topK), temperature: parameters.temperature, topP: parameters.topP,
                minP: parameters.minP, penalty: parameters.repetitionPenalty, unused: 0)
            try launch(.selectLargest, grid: Grid(x: Int(NIBBLE_SELECT_PARTS), y: rows), block: 256, arguments)
            try launch(.select, grid: Grid(x: rows), block: 1024, arguments)
        }
    }

    package func advance(_ batch: BatchIndices, tokens: Tensor, counters: Tensor) throws {
        try perform {
            let arguments = NibbleAdvanceArguments(
                batch: NibbleBatch(batch), tokens: tokens.pointer, counters: counters.pointer)
            try launch(.advance, grid: Grid(x: blocks(batch.rowCount, per: 128)), block: 128, arguments)
        }
    }
}
