internal import CNibbleCPU
internal import NibbleCore

extension CPUBackend {
    /// Bytes per second that all threads together read from memory, the best of several runs. It bounds the speed of decoding.
    ///
    /// Takes 256 MiB and a fraction of a second.
    /// - Throws: `BackendError.outOfMemory`
    package func measureReadBandwidth() throws -> Double {
        let byteCount = 256 << 20
        let memory = try allocate(.uint8, [byteCount])
        let count = byteCount / Int(NIBBLE_READ_GRAIN)
        pool.parallel(count: count) { range, _ in
            let grain = Int(NIBBLE_READ_GRAIN)
            UnsafeMutableRawPointer(memory.mutablePointer + range.lowerBound * grain)
                .initializeMemory(as: UInt8.self, repeating: 1, count: range.count * grain)
        }
        var best = 0.0
        for _ in 0..<12 {
            let start = ContinuousClock.now
            pool.run(count: count, context: memory.mutablePointer, task: nibble_read_task)
            best = max(best, Double(byteCount) / ((ContinuousClock.now - start) / .seconds(1)))
        }
        return best
    }
}
