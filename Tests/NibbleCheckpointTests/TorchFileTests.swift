import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleTestSupport
import Testing

@Suite struct TorchFileTests {
    private static let recorded = Fixtures.repository.appending(path: "Tests/Fixtures/torch")

    @Test(
        "every element of a recorded state dict is read, in every form",
        arguments: ["zip.bin", "legacy.bin", "protocol4.bin", "training.bin"])
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

    private static let small: [String] =
        (2...5).flatMap { ["protocol\($0).zip.bin", "protocol\($0).legacy.bin"] }
        + ["extras.bin", "extras.legacy.bin", "wrapped.model.bin", "wrapped.state_dict.bin", "deflated.bin"]

    @Test("protocols 2 to 5, whatever stands beside the tensors", arguments: small)
    func kinds(name: String) throws {
        let checkpoint = try TorchFile(Self.recorded.appending(path: name))
        let matrix = try checkpoint.tensor("matrix")
        #expect(matrix.shape == [2, 3] && matrix.floats == [0, 1, 2, 3, 4, 5])
        #expect(try checkpoint.tensor("vector").halves == [-1.5, 2.5])
        let hasExtras = name.hasPrefix("extras")
        #expect(checkpoint.names.count == (hasExtras ? 4 : 2))
        guard hasExtras else { return #expect(checkpoint.unreadableNames.isEmpty) }
        #expect(try checkpoint.tensor("parameter.state").floats == [4] && checkpoint.tensor("tensor.state").floats == [5])
        for (name, word) in [
            ("complex.tensor", "complex64"), ("sparse.tensor", "sparse"), ("quantized.tensor", "quantized"),
            ("meta.tensor", "meta"), ("rank.five", "5 dimensions"),
        ] {
            #expect(checkpoint.unreadableNames.contains(name))
            expectCheckpointError(naming: checkpoint.files[0], containing: name, word) { try checkpoint.tensor(name) }
        }
    }

    @Test("deflated archives of every block form are unpacked", arguments: ["deflated1.bin", "deflated9.bin"])
    func deflated(name: String) throws {
        let checkpoint = try TorchFile(Self.recorded.appending(path: name))
        let expected = try SafetensorsFile(Self.recorded.appending(path: "long.safetensors"))
        #expect(checkpoint.names == expected.names)
        for name in expected.names {
            checkpoint.prefetch(name)
            #expect(try checkpoint.tensor(name).bytes == expected.tensor(name).bytes)
            // What is unpacked is not in the file: it must survive this.
            checkpoint.dropPages(name)
            #expect(try checkpoint.tensor(name).bytes == expected.tensor(name).bytes)
            #expect(checkpoint.descriptor(name)?.isContiguous == false)
        }
    }

    @Test("a damaged stream is refused, wherever the damage is") func damagedStream() throws {
        let folder = try TemporaryFolder()
        let intact = try Array(Data(contentsOf: Self.recorded.appending(path: "deflated9.bin")))
        var refused = 0
        for place in stride(from: 60, to: intact.count - 400, by: 37) {
            var bytes = intact
            bytes[place] ^= 0x10
            do {
                _ = try TorchFile(folder.write(bytes, to: "a.bin"))
            } catch is CheckpointError { refused += 1 }
        }
        // All but the few bytes of local headers that nothing depends on.
        #expect(refused * 10 > (intact.count - 460) / 37 * 9)
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
