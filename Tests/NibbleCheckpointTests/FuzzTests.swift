import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleTestSupport
import Testing

/// Damaged files must end in a typed error or in tensors that can be read; never in a crash, a hang or a flood of memory.
///
/// The damage is the same in every run. `NIBBLE_FUZZ` sets how many files of each kind are tried.
@Suite struct FuzzTests {
    private static let rounds = ProcessInfo.processInfo.environment["NIBBLE_FUZZ"].flatMap(Int.init) ?? 150

    private static func recorded(_ path: String) throws -> [UInt8] {
        try Array(Data(contentsOf: Fixtures.repository.appending(path: "Tests/Fixtures").appending(path: path)))
    }

    @Test("a damaged archive of torch.save") func torchZip() throws {
        try fuzz(Self.recorded("torch/zip.bin"), seed: 1) { try readAll(TorchFile($0)) }
    }

    @Test("a damaged file of the older form of torch.save") func torchLegacy() throws {
        try fuzz(Self.recorded("torch/legacy.bin"), seed: 2) { try readAll(TorchFile($0)) }
    }

    @Test("a damaged safetensors file") func safetensors() throws {
        try fuzz(Self.recorded("torch/elements.safetensors"), seed: 3) { try readAll(SafetensorsFile($0)) }
    }

    @Test("a damaged GGUF file") func gguf() throws {
        try fuzz(Self.recorded("gguf/blocks.gguf"), seed: 4) { url in
            let file = try GGUFFile(url)
            for name in file.names { _ = try checksum(file.tensor(name)) }
            _ = try GGUFCheckpoint(url)
        }
    }

    @Test("a damaged index") func index() throws {
        let folder = try TemporaryFolder()
        try folder.write(Self.recorded("torch/elements.safetensors"), to: "a.safetensors")
        let text = #"{"metadata": {"total_size": 10}, "weight_map": {"matrix": "a.safetensors", "rows": "a.safetensors"}}"#
        var damage = Damage(original: Array(text.utf8), seed: 5)
        for _ in 0..<Self.rounds {
            try folder.write(damage.next(), to: "model.safetensors.index.json")
            do { try readAll(CheckpointFiles.open(folder: folder.url)) } catch is CheckpointError {}
        }
    }

    private func fuzz(_ original: [UInt8], seed: UInt64, _ read: (URL) throws -> Void) throws {
        let folder = try TemporaryFolder()
        try read(folder.write(original, to: "intact"))
        var damage = Damage(original: original, seed: seed)
        var refused = 0
        for _ in 0..<Self.rounds {
            let file = try folder.write(damage.next(), to: "damaged")
            do { try read(file) } catch is CheckpointError { refused += 1 }
        }
        #expect(refused > Self.rounds / 10)
    }

    private func readAll(_ checkpoint: some Checkpoint) throws {
        for name in checkpoint.namesInFileOrder {
            let place = try #require(checkpoint.descriptor(name))
            checkpoint.prefetch(name)
            // An expanded view may be refused on its own.
            let tensor: Tensor
            do { tensor = try checkpoint.tensor(name) } catch is CheckpointError { continue }
            #expect(tensor.shape == place.shape && tensor.dtype == place.dtype)
            #expect(tensor.address % UInt(tensor.dtype.byteCount) == 0)
            _ = checksum(tensor)
            checkpoint.dropPages(name)
        }
    }

    /// Touches every byte.
    private func checksum(_ tensor: Tensor) -> UInt8 { tensor.hostBytes.reduce(0, &+) }
}

/// Ever new damaged copies of one file.
private struct Damage {
    let original: [UInt8]
    private var state: UInt64

    init(original: [UInt8], seed: UInt64) {
        self.original = original
        state = seed
    }

    mutating func next() -> [UInt8] {
        var bytes = original
        for _ in 0...below(3) { strike(&bytes) }
        return bytes
    }

    private mutating func strike(_ bytes: inout [UInt8]) {
        guard !bytes.isEmpty else { return }
        // Headers are at the beginning, except a zip archive's directory.
        let place =
            below(4) == 0
            ? below(bytes.count) : below(2) == 0 ? below(min(bytes.count, 600)) : bytes.count - 1 - below(min(bytes.count, 600))
        switch below(8) {
        case 0: bytes[place] ^= 1 << UInt8(below(8))
        case 1: bytes[place] = UInt8(below(256))
        case 2: bytes[place] = [0, 1, 0x7F, 0x80, 0xFF][below(5)]
        case 3: bytes.removeSubrange(place..<min(place + 1 + below(16), bytes.count))
        case 4: bytes.insert(contentsOf: (0...below(16)).map { UInt8(truncatingIfNeeded: $0 &* 37) }, at: place)
        case 5: bytes.removeSubrange(place...)
        case 6:
            let piece = Array(bytes[place..<min(place + 1 + below(64), bytes.count)])
            bytes.insert(contentsOf: piece, at: below(bytes.count))
        default:
            let value = [0, 1, .max, 1 << 31, 1 << 32, 1 << 62, 1 << 63, UInt64(bytes.count)][below(8)]
            for (index, byte) in littleEndian(value).prefix(below(2) == 0 ? 4 : 8).enumerated() where place + index < bytes.count
            {
                bytes[place + index] = byte
            }
        }
    }

    /// SplitMix64.
    private mutating func below(_ bound: Int) -> Int {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return Int((mixed ^ mixed >> 31) % UInt64(bound))
    }
}
