import Foundation
import NibbleCPU
import NibbleCore
import NibbleLoading
import NibbleTestSupport
import Testing

/// Weights that are written once and mapped.
@Suite struct OffloadStoreTests {
    private static let formats: [WeightFormat] = [
        .dense(.float32), .int8, .fourBit(FourBitFormat(codebook: .fp4)),
        .fourBit(FourBitFormat(codebook: .nf4, isNested: true)),
    ]

    private func weight(_ format: WeightFormat) throws -> LinearWeight {
        let values = TinyModel.values([16, 64], seed: 5)
        return if case .dense = format { .dense(values) } else { try CPUBackend(threads: 1).quantize(values, to: format) }
    }

    private func bytes(_ weight: LinearWeight) -> [[UInt8]] {
        var bytes = [[UInt8]]()
        _ = weight.mapTensors { tensor in
            bytes.append(tensor.bytes)
            return tensor
        }
        return bytes
    }

    @Test("a weight is made once, and found again by another store", arguments: formats) func reuse(format: WeightFormat) throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let original = try weight(format)
        let first = try OffloadStore(folder).weight("w", identity: "one") { original }
        #expect(bytes(first.weight) == bytes(original))
        #expect(!first.names.isEmpty)
        let second = try OffloadStore(folder).weight("w", identity: "one") {
            Issue.record("the weight is made again")
            return original
        }
        #expect(bytes(second.weight) == bytes(original))
        #expect(try Files.names(in: folder) == ["w.safetensors"])
    }

    @Test(
        "a weight of another identity is replaced",
        arguments: [("one", "two"), ("/caf\u{E9} 1", "/cafe\u{301} 1")])
    func replaced(identities: (String, String)) throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let (old, new) = (try weight(.int8), try weight(.dense(.float32)))
        _ = try OffloadStore(folder).weight("w", identity: identities.0) { old }
        let found = try OffloadStore(folder).weight("w", identity: identities.1) { new }
        #expect(bytes(found.weight) == bytes(new))
    }

    @Test("a store without a folder leaves no file behind, and its weights stay readable") func temporary() throws {
        let original = try weight(.int8)
        var store: OffloadStore? = OffloadStore(nil)
        let stored = try #require(try store?.weight("w", identity: "one") { original })
        let file = try #require(stored.file.files.first)
        #expect(!FileManager.default.fileExists(atPath: file.path))
        #expect(FileManager.default.fileExists(atPath: file.deletingLastPathComponent().path))
        store = nil
        #expect(!FileManager.default.fileExists(atPath: file.deletingLastPathComponent().path))
        #expect(bytes(stored.weight) == bytes(original))
    }

    @Test("a folder that cannot be created is named with the reason") func unwritable() throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let file = folder.appending(path: "file")
        try Files.write(Data(), to: file)
        let original = try weight(.int8)
        #expect(throws: LoadError.unwritableOffloadFolder(folder: file.path, reason: "a file of that name exists")) {
            _ = try OffloadStore(file).weight("w", identity: "one") { original }
        }
    }

    @Test("a failure while a weight is made leaves no file") func failure() throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        #expect(throws: LoadError.unknownDType("none")) {
            _ = try OffloadStore(folder).weight("w", identity: "one") { throw LoadError.unknownDType("none") }
        }
        #expect(try Files.names(in: folder).isEmpty)
    }
}
