import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleTestSupport
import Testing

/// A damaged file must end in a typed error or in tensors that can be read, never in a crash, a hang or a flood of memory.
///
/// The damage is the same in every run. `NIBBLE_FUZZ` sets how many files of each kind are tried.
@Suite struct FuzzTests {
    private static let rounds = Damage.rounds

    private static func recorded(_ path: String) throws -> [UInt8] {
        try Array(Data(contentsOf: Fixtures.repository.appending(path: "Tests/Fixtures").appending(path: path)))
    }

    @Test("a damaged archive of torch.save") func torchZip() throws {
        try fuzz(Self.recorded("torch/zip.bin"), seed: 1) { try readAll(TorchFile($0)) }
    }

    @Test("a damaged file of the older form of torch.save") func torchLegacy() throws {
        try fuzz(Self.recorded("torch/legacy.bin"), seed: 2) { try readAll(TorchFile($0)) }
    }

    @Test(
        "a damaged pickle of a later protocol, and one with all that may stand beside tensors",
        arguments: ["extras.bin", "protocol5.zip.bin", "protocol5.legacy.bin", "extras.legacy.bin"])
    func torchKinds(name: String) throws {
        try fuzz(Self.recorded("torch/\(name)"), seed: 6) { try readAll(TorchFile($0)) }
    }

    @Test("a damaged archive that is compressed") func torchDeflated() throws {
        try fuzz(Self.recorded("torch/deflated9.bin"), seed: 7) { try readAll(TorchFile($0)) }
    }

    @Test("a damaged safetensors file") func safetensors() throws {
        try fuzz(Self.recorded("torch/elements.safetensors"), seed: 3) { try readAll(SafetensorsFile($0)) }
    }

    @Test("a damaged GGUF file") func gguf() throws {
        try fuzz(Self.recorded("gguf/blocks.gguf"), seed: 4) { url in
            let file = try GGUFFile(url)
            for name in file.names { _ = try checksum(file.tensor(name)) }
        }
    }

    @Test("a damaged GGUF file under Hugging Face's names") func ggufCheckpoint() throws {
        try fuzz(Self.recorded("gguf/llama.gguf"), seed: 8) { try readAll(GGUFCheckpoint($0)) }
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
