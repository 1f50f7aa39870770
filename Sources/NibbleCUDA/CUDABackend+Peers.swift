internal import CNibbleCUDA
internal import NibbleCore

/// Copies between GPUs, and within one.
extension CUDABackend {
    /// Copies from another backend's memory, or within this backend's. The other stream waits for the copy, so that memory it
    /// frees afterwards is not overwritten too early.
    func copy(_ source: Tensor, from origin: CUDABackend, into destination: Tensor) throws {
        if origin !== self {
            try linkOnce(with: origin)
            try wait(for: origin)
        }
        try perform {
            allowsOverlap = false
            try copy(source.byteCount, from: source.pointer, of: origin, to: destination.pointer)
        }
        if origin !== self { try origin.wait(for: self) }
    }

    private func copy(_ byteCount: Int, from: UInt64, of origin: CUDABackend, to: UInt64) throws {
        if origin.card == card {
            try check(nibble_cuMemcpyDtoDAsync(to, from, byteCount, stream.handle), "cuMemcpyDtoDAsync", on: device)
        } else {
            try check(
                nibble_cuMemcpyPeerAsync(to, context.handle, from, origin.context.handle, byteCount, stream.handle),
                "cuMemcpyPeerAsync", on: device)
        }
    }

    /// Work enqueued here from now on runs after the work already enqueued on the other backend.
    private func wait(for other: CUDABackend) throws {
        let event = try other.perform {
            try other.requireNoCapture("a copy between devices")
            let event = try other.mark.get()
            try event.record(on: other.stream)
            return event
        }
        try perform {
            try requireNoCapture("a copy between devices")
            allowsOverlap = false
            // Waits for what the event marks now, even if it is recorded anew before the wait ends.
            try stream.wait(for: event)
        }
    }

    // MARK: Direct access

    /// Lets the two GPUs copy to each other directly where they can. Without it the driver copies through the host.
    private func linkOnce(with other: CUDABackend) throws {
        guard other.card != card else { return }
        let isNew = try perform {
            guard !linked.contains(other.device) else { return false }
            try requireNoCapture("a link between devices")
            linked.insert(other.device)
            return true
        }
        guard isNew else { return }
        _ = try other.perform { other.linked.insert(device) }
        try enableAccess(to: other)
        try other.enableAccess(to: self)
        try verifyLink(with: other)
    }

    /// A pair without direct access stays as it is.
    private func enableAccess(to other: CUDABackend) throws {
        try perform {
            var isPossible: Int32 = 0
            try check(
                nibble_cuDeviceCanAccessPeer(&isPossible, Int32(card.number), Int32(other.card.number)),
                "cuDeviceCanAccessPeer", on: device)
            guard isPossible != 0 else { return }
            let status = nibble_cuCtxEnablePeerAccess(other.context.handle, 0)
            // Somebody else in the process, or an earlier backend, may have enabled it.
            let alreadyEnabled: Int32 = 704
            if status != alreadyEnabled { try check(status, "cuCtxEnablePeerAccess", on: device) }
        }
    }

    /// Some machines announce access that loses writes: a pattern is sent there and back.
    private func verifyLink(with other: CUDABackend) throws {
        let count = 1 << 16
        let pattern = (0..<count).map { Int32(truncatingIfNeeded: $0 &* 2_654_435_761 ^ 0x5bd1_e995) }
        let (mine, theirs, back) = (
            try allocate(.int32, [count]), try other.allocate(.int32, [count]), try allocate(.int32, [count])
        )
        try copy(.host(pattern, .int32, [count]), to: mine)
        try copy(.host([Int32](repeating: 0, count: count), .int32, [count]), to: back)
        try other.copy(mine, from: self, into: theirs)
        try copy(theirs, from: other, into: back)
        var found = [Int32](repeating: 0, count: count)
        try found.withUnsafeMutableBytes { try read(back, into: $0) }
        guard found == pattern else {
            throw BackendError.deviceFailure(
                device: device, call: "cuMemcpyPeerAsync",
                message: "data sent to \(other.device) came back changed: direct access between these GPUs does not work")
        }
    }
}
