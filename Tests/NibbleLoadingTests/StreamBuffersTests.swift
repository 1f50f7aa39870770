import NibbleCore
import NibbleLoading
import Synchronization
import Testing

/// The order in which blocks from the disk pass through two buffers.
@Suite struct StreamBuffersTests {
    struct Refused: Error {}

    /// Records what is asked of it, and refuses what it is told to.
    private final class RecordingUploads: Uploads {
        private let state = Mutex<(events: [String], refused: Set<String>)>(([], []))

        var events: [String] { state.withLock { $0.events } }

        func refuse(_ event: String?) { state.withLock { $0.refused = event.map { [$0] } ?? [] } }

        private func record(_ event: String) throws {
            try state.withLock {
                $0.events.append(event)
                if $0.refused.contains(event) { throw Refused() }
            }
        }

        func fill(_ slot: Int, _ copies: [(source: Tensor, destination: Tensor)]) throws { try record("fill \(slot)") }
        func acquire(_ slot: Int) throws { try record("acquire \(slot)") }
        func release(_ slot: Int) throws { try record("release \(slot)") }
    }

    private func buffers(_ count: Int) -> (StreamBuffers, RecordingUploads) {
        let uploads = RecordingUploads()
        let blocks = (0..<count).map { StreamBuffers.BlockUpload(files: MappedWeights(), copies: [], next: ($0 + 1) % count) }
        return (StreamBuffers(blocks, device: uploads), uploads)
    }

    @Test("the next block is uploaded when a block is released, and not again when it is acquired") func order() throws {
        let (buffers, uploads) = buffers(3)
        for block in 0..<3 {
            try buffers.acquire(block)
            buffers.release(block)
        }
        #expect(
            uploads.events == [
                "fill 0", "acquire 0", "release 0", "fill 1", "acquire 1", "release 1", "fill 0", "acquire 0", "release 0",
                // Blocks 2 and 0 share a buffer.
                "fill 0",
            ])
        try buffers.acquire(0)
        #expect(uploads.events.last == "acquire 0")
        buffers.release(0)
    }

    @Test("a block that stays in its buffer is not uploaded again") func resident() throws {
        let (buffers, uploads) = buffers(2)
        for _ in 0..<3 {
            for block in 0..<2 {
                try buffers.acquire(block)
                buffers.release(block)
            }
        }
        #expect(uploads.events.filter { $0.hasPrefix("fill") } == ["fill 0", "fill 1"])
    }

    @Test("a failed upload or acquisition is thrown, and leaves the buffer free", arguments: ["fill 0", "acquire 0"])
    func failure(event: String) throws {
        let (buffers, uploads) = buffers(2)
        uploads.refuse(event)
        #expect(throws: Refused.self) { try buffers.acquire(0) }
        uploads.refuse(nil)
        try buffers.acquire(0)
        buffers.release(0)
    }

    @Test("a buffer whose release failed is filled again") func failedRelease() throws {
        let (buffers, uploads) = buffers(2)
        uploads.refuse("release 0")
        try buffers.acquire(0)
        buffers.release(0)
        uploads.refuse(nil)
        try buffers.acquire(0)
        buffers.release(0)
        #expect(uploads.events.filter { $0 == "fill 0" }.count == 2)
    }

    @Test("a failed upload ahead of time fails where the block is needed") func failedAhead() throws {
        let (buffers, uploads) = buffers(2)
        uploads.refuse("fill 1")
        try buffers.acquire(0)
        buffers.release(0)
        #expect(throws: Refused.self) { try buffers.acquire(1) }
        uploads.refuse(nil)
        try buffers.acquire(1)
        buffers.release(1)
    }

    @Test("tensors lie one after the other, each aligned") func layout() {
        var layout = StreamLayout()
        for count in [1, 64, 65, 128] { layout.add(.host(.float32, [count])) }
        #expect(layout.offsets == [0, 256, 512, 1024])
        #expect(layout.byteCount == 1536)
        #expect(layout.offsets.allSatisfy { $0 % StreamLayout.alignment == 0 })
    }
}
