import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleTestSupport
import Testing

@Suite struct TorchFileTests {
    private static let recorded = Fixtures.repository.appending(path: "Tests/Fixtures/torch")

    @Test("every element of a recorded state dict is read, in both forms", arguments: ["zip.bin", "legacy.bin"])
    func elements(name: String) throws {
        let checkpoint = try TorchFile(Self.recorded.appending(path: name))
        let expected = try SafetensorsFile(Self.recorded.appending(path: "elements.safetensors"))
        // The older form cannot hold the newer dtypes.
        let newer = ["uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2"].map { "dtype.\($0)" }
        let wanted = expected.names.filter { name == "zip.bin" || !newer.contains($0) }
        #expect(checkpoint.names == wanted)
        for name in wanted {
            let (read, recorded) = try (checkpoint.tensor(name), expected.tensor(name))
            #expect(read.dtype == recorded.dtype && read.shape == recorded.shape, "\(name)")
            #expect(read.bytes == recorded.bytes, "\(name)")
            #expect(read.address % UInt(read.dtype.byteCount) == 0)
        }
        #expect(checkpoint.firstFloatingPointDType == .float32)
    }

    @Test("views of one storage are found in place; what is not row-major says so")
    func views() throws {
        let checkpoint = try TorchFile(Self.recorded.appending(path: "zip.bin"))
        func place(_ name: String) throws -> TensorDescriptor { try #require(checkpoint.descriptor(name)) }
        let matrix = try place("matrix")
        #expect(try place("tied") == matrix)
        #expect(matrix.isContiguous && matrix.byteOffset % 64 == 0)
        let rows = try place("rows")
        #expect(rows.isContiguous && rows.byteOffset == matrix.byteOffset + 2 * 7 * 4 && rows.byteCount == 2 * 7 * 4)
        let (first, second) = try (checkpoint.tensor("matrix"), checkpoint.tensor("tied"))
        #expect(first.storage === second.storage && first.address == second.address)
        #expect(try place("row.of.one").isContiguous && place("scalar").isContiguous && place("empty").isContiguous)
        for name in ["transposed", "columns", "permuted", "expanded"] { #expect(try !place(name).isContiguous) }
        #expect(try place("columns").byteOffset == matrix.byteOffset + 4)
        #expect(try place("columns").byteCount == (4 * 7 + 2 * 2 + 1) * 4)
        #expect(try place("expanded").byteCount == 8)
        for name in checkpoint.names {
            checkpoint.prefetch(name)
            checkpoint.dropPages(name)
        }
    }

    @Test(
        "a training checkpoint and another pickle protocol are refused",
        arguments: [("training.bin", "state_dict"), ("protocol4.bin", "protocol 4")])
    func recordedRefusals(name: String, word: String) throws {
        let file = Self.recorded.appending(path: name)
        expectCheckpointError(naming: file, containing: word) { try TorchFile(file) }
    }

    @Test(
        "recorded model checkpoints open",
        .enabled(if: Set(Fixtures.folders(in: "fixtures/models")).isSuperset(of: ["opt", "t5"])), arguments: ["opt", "t5"])
    func models(name: String) throws {
        let checkpoint = try CheckpointFiles.open(folder: Fixtures.url("fixtures/models/\(name)"))
        #expect(checkpoint.files.count == (name == "t5" ? 4 : 1))
        for tensor in checkpoint.names {
            let place = try #require(checkpoint.descriptor(tensor))
            #expect(try place.isContiguous && checkpoint.tensor(tensor).byteCount == place.byteCount)
        }
        let twins =
            name == "t5"
            ? ["shared.weight", "encoder.embed_tokens.weight"] : ["model.decoder.embed_tokens.weight", "lm_head.weight"]
        #expect(try checkpoint.tensor(twins[0]).bytes == checkpoint.tensor(twins[1]).bytes)
        if name == "opt" { #expect(checkpoint.descriptor(twins[0]) == checkpoint.descriptor(twins[1])) }
    }
}
