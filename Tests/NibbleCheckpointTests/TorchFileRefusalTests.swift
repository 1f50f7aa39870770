import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleTestSupport
import Testing

@Suite struct TorchFileRefusalTests {
    let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    private static let four = Pickle.storage(count: 4)
    private static let good = Pickle.dict(Pickle.tensor(four, [2, 2], strides: [2, 1]))

    private func open(_ bytes: [UInt8]) throws -> TorchFile { try TorchFile(folder.write(bytes, to: "pytorch_model.bin")) }

    @Test(
        "archives of every honest kind are read",
        arguments: [
            { _ in }, { $0.isZip64 = true }, { $0.comment = Array("PK and more".utf8) },
            { builder in for index in builder.entries.indices { builder.entries[index].hasDescriptor = true } },
            { $0.entries.append(.init(name: "any/byteorder", data: Array("little".utf8))) },
            { $0.entries.append(.init(name: "any/code/data.pkl", data: [])) },
        ] as [@Sendable (inout ZipBuilder) -> Void])
    func archives(change: @Sendable (inout ZipBuilder) -> Void) throws {
        let tensor = try open(torchZip(Self.good, change: change)).tensor("t")
        #expect(tensor.floats == [1, 2, 3, 4] && tensor.shape == [2, 2])
    }

    static let brokenArchives: [(what: String, word: String, change: @Sendable (inout ZipBuilder) -> Void)] = [
        ("compressed by another method", "any/data/0 is compressed by method 12", { $0.entries[1].method = 12 }),
        ("damaged compression", "damaged data", { $0.entries[1].method = 8 }),
        ("encrypted", "any/data/0 is encrypted", { $0.entries[1].flags = 1 }),
        ("big-endian", "little-endian", { $0.entries.append(.init(name: "any/byteorder", data: Array("big".utf8))) }),
        ("two equal entries", "a second any/data/0", { $0.entries.append($0.entries[1]) }),
        ("two pickles", "data.pkl", { $0.entries.append(.init(name: "other/data.pkl", data: [])) }),
        ("no pickle", "data.pkl", { $0.entries.removeFirst() }),
        ("no storage", "any/data/0", { $0.entries.remove(at: 1) }),
        ("storage of another length", "16 bytes in storage 0", { $0.entries[1].data.removeLast() }),
        ("another local name", "local header of any/data/0", { $0.entries[1].localName = "any/data/1" }),
        ("entry beyond the directory", "bytes of archive entry any/version", { $0.entries[2].excess = 1 }),
    ]

    @Test("archives that torch does not write are refused", arguments: brokenArchives)
    func archiveRefusals(what: String, word: String, change: @Sendable (inout ZipBuilder) -> Void) throws {
        let file = try folder.write(torchZip(Self.good, change: change), to: "pytorch_model.bin")
        expectCheckpointError(naming: file, containing: word) { try TorchFile(file) }
    }

    static let brokenPickles: [(what: String, pickle: [UInt8], word: String)] = {
        let p = Pickle.self
        func dict(_ value: [UInt8]) -> [UInt8] { p.dict(value) }
        func tensor(_ sizes: [Int], _ strides: [Int], offset: Int = 0) -> [UInt8] {
            dict(p.tensor(four, offset: offset, sizes, strides: strides))
        }
        let huge = 1 << 62
        return [
            ("empty", [], "1 bytes"),
            ("cut short", Array(good.dropLast()), "1 bytes"),
            ("another protocol", [0x80, 6] + good.dropFirst(2), "protocol 6"),
            ("system call", p.start + p.global("os", "system") + p.tuple(p.text("true")) + p.reduce + p.stop, "os.system"),
            ("builtin", dict(p.global("__builtin__", "eval")), "__builtin__.eval"),
            ("attribute walk", dict(p.global("torch", "nn.Module")), "torch.nn.Module"),
            ("prefix of a known global", dict(p.global("torch", "FloatStorage2")), "FloatStorage2"),
            ("stack global", p.start + p.text("os") + p.text("system") + [0x93] + p.stop, "os.system"),
            ("rebuilt by another function", dict(p.global("torch._utils", "_rebuild_parameter_v9")), "_rebuild_parameter_v9"),
            (
                "tensor of another class",
                dict(
                    p.global("torch._tensor", "_rebuild_from_type_v2")
                        + p.tuple(
                            p.global("torch._utils", "_rebuild_tensor_v2"), p.global("collections", "OrderedDict"), p.emptyTuple,
                            p.emptyDict) + p.reduce), "a tensor class"
            ),
            ("instance", p.start + p.mark + Array("ios\nsystem\n.".utf8), "opcode 0x69"),
            ("extension", p.start + [0x82, 1] + p.stop, "opcode 0x82"),
            ("a buffer from elsewhere", p.start + [0x97] + p.stop, "opcode 0x97"),
            ("frame cut short", p.start + [0x95, 0, 0], "8 bytes"),
            ("module id", dict(p.tuple(p.text("module"), p.none) + Array("Q".utf8)), "persistent id"),
            ("six-part id in an archive", dict(p.tensor(p.storage(count: 4, view: p.none), [4], strides: [1])), "5 items"),
            ("id that is text", dict(p.text("storage") + Array("Q".utf8)), "persistent id"),
            (
                "storage type that is a function", dict(p.storage("_rebuild_tensor_v2", module: "torch._utils", count: 4)),
                "another type"
            ),
            ("call of a type", dict(p.global("torch", "FloatStorage") + p.emptyTuple + p.reduce), "a call of a type"),
            ("call of text", dict(p.text("f") + p.emptyTuple + p.reduce), "not a global"),
            ("call without a tuple", dict(p.global("collections", "OrderedDict") + p.none + p.reduce), "a tuple of arguments"),
            ("dict from arguments", dict(p.global("collections", "OrderedDict") + p.tuple(p.none) + p.reduce), "items of a dict"),
            ("new object of another type", dict(p.global("torch", "FloatStorage") + p.emptyTuple + [0x81]), "another type"),
            ("state for a list", dict(Array("]}b".utf8)), "a state"),
            ("append to a dict", dict(p.emptyDict + p.none + Array("a".utf8)), "not a list"),
            ("items of a list", dict(Array("]NNs".utf8)), "not a dict"),
            ("odd items", dict(Array("}(NNNu".utf8)), "in pairs"),
            ("pop of nothing", p.start + p.stop, "a value on the stack"),
            ("pop below a mark", dict(Array("N(s".utf8)), "a value on the stack"),
            ("tuple without a mark", dict(Array("t".utf8)), "a mark"),
            ("two objects", p.start + p.none + good.dropFirst(2), "one object"),
            ("memo that is empty", dict(Array("h\u{5}".utf8)), "memo slot 5"),
            ("memo beyond reason", dict(p.none + Array("r".utf8) + littleEndian(UInt32.max)), "memo slot"),
            ("memo of nothing", p.start + Array("q\0".utf8), "to remember"),
            ("text beyond the file", p.start + Array("X".utf8) + littleEndian(UInt32.max), "4294967295 bytes"),
            (
                "name that is no UTF-8",
                p.start + p.emptyDict + Array("X".utf8) + littleEndian(UInt32(1)) + [0xFF] + p.tensor(four, [4], strides: [1])
                    + p.setItem + p.stop, "UTF-8"
            ),
            ("no dict", p.start + p.tensor(four, [4], strides: [1]) + p.stop, "a dict"),
            ("no tensors", p.start + p.emptyDict + p.stop, "without tensors"),
            ("state dict inside", p.dict(p.emptyDict, name: "state_dict"), "state_dict"),
            ("negative size", tensor([-1], [1]), "whole numbers"),
            ("negative stride", tensor([4], [-1], offset: 3), "whole numbers"),
            ("negative offset", tensor([4], [1], offset: -1), "-1"),
            ("view beyond the storage", tensor([5], [1]), "4 elements"),
            ("offset beyond the storage", tensor([4], [1], offset: 1), "4 elements"),
            ("strides beyond the storage", tensor([2, 2], [3, 1]), "4 elements"),
            ("empty view beyond the storage", tensor([0], [1], offset: 5), "4 elements"),
            ("offset that overflows", tensor([2], [1], offset: .max), "4 elements"),
            ("stride that overflows", tensor([3], [huge]), "4 elements"),
            ("sizes that overflow", tensor([huge, 4], [0, 0]), "memory can hold"),
            ("fewer strides", tensor([2, 2], [1]), "2 strides"),
            ("storage size that overflows", dict(p.tensor(p.storage(count: huge), [1], strides: [1])), "a storage size"),
            ("negative storage", dict(p.tensor(p.storage(count: -1), [1], strides: [1])), "a storage size"),
            ("storage of two types", dict(p.tuple(four, p.storage("IntStorage", count: 4))), "one type and size"),
            (
                "weights in a dict of another name", p.dict(p.dictValue("w", p.tensor(four, [4], strides: [1])), name: "net"),
                "\"net\""
            ),
            (
                "two dicts of weights",
                p.start + p.emptyDict
                    + ["model", "state_dict"].flatMap {
                        p.text($0) + p.dictValue("w", p.tensor(four, [4], strides: [1])) + p.setItem
                    }
                    + p.stop, "\"model\", \"state_dict\""
            ),
        ]
    }()

    @Test("pickles that are no plain state dict are refused", arguments: brokenPickles)
    func pickleRefusals(what: String, pickle: [UInt8], word: String) throws {
        let file = try folder.write(torchZip(pickle), to: "pytorch_model.bin")
        expectCheckpointError(naming: file, containing: word) { try TorchFile(file) }
    }

    static let unreadable: [(what: String, value: [UInt8], word: String)] = {
        let p = Pickle.self
        func call(_ name: String) -> [UInt8] { p.global("torch._utils", name) + p.tuple(p.none) + p.reduce }
        return [
            ("complex", p.tensor(p.storage("ComplexFloatStorage", count: 2), [2], strides: [1]), "complex64"),
            ("quantized", call("_rebuild_qtensor"), "quantized"), ("sparse", call("_rebuild_sparse_tensor"), "sparse"),
            ("meta", call("_rebuild_meta_tensor_no_storage"), "meta"),
            ("rank 5", p.tensor(four, [1, 1, 1, 1, 4], strides: [4, 4, 4, 4, 1]), "shape [1, 1, 1, 1, 4]"),
            (
                "raw bytes without a dtype",
                p.tensor(p.storage("UntypedStorage", module: "torch.storage", count: 16), [4], strides: [1]), "raw bytes"
            ),
        ]
    }()

    @Test("a tensor of an unsupported kind is refused only when asked for", arguments: unreadable)
    func unreadableTensors(what: String, value: [UInt8], word: String) throws {
        let file = try open(torchZip(Pickle.dict(value)))
        #expect(file.names.isEmpty && file.unreadableNames == ["t"])
        expectCheckpointError(naming: folder.url, containing: "tensor t", word) { try file.tensor("t") }
    }

    @Test("a dict that is copied over and over is bounded")
    func copiedDicts() throws {
        // A dict of 2000 items, then an ordered dict made from it 2000 times.
        let items = Array(repeating: Pickle.none + Pickle.none, count: 2000).joined()
        let copy = Pickle.global("collections", "OrderedDict") + Array("h\0".utf8) + [0x85] + Pickle.reduce + Array("0".utf8)
        let pickle =
            Pickle.start + Pickle.emptyDict + Array("q\0(".utf8) + items + Array("u".utf8)
            + Array(repeating: copy, count: 2000).joined() + Pickle.stop
        expectCheckpointError(naming: folder.url, containing: "containers") { try open(torchZip(pickle)) }
    }

    @Test("an archive that claims to unpack to more than any weights do is refused before it is unpacked")
    func unpackingBomb() throws {
        let file = torchZip(Self.good) { builder in
            builder.entries[1].method = 8
            builder.entries[1].unpackedSize = 1 << 31
        }
        expectCheckpointError(naming: folder.url, containing: "64 times") { try open(file) }
    }

    @Test("deep nesting, cycles and endless repetition are harmless")
    func bombs() throws {
        let tensor = Pickle.tensor(Self.four, [4], strides: [1])
        func accepted(_ harmless: [UInt8]) -> [UInt8] {
            Pickle.start + Pickle.emptyDict + Pickle.text("x") + harmless + Pickle.setItem + Pickle.text("t") + tensor
                + Pickle.setItem + Pickle.stop
        }
        let nested = [UInt8](repeating: UInt8(ascii: "]"), count: 100_000) + [UInt8](repeating: UInt8(ascii: "a"), count: 99_999)
        let cycle = Array("]q\u{7}h\u{7}a".utf8)
        // Each tuple holds the one before it twice: 2^1000 values, were they ever counted.
        let twice: [UInt8] = Array("h\u{1}h\u{1}".utf8) + [0x86] + Array("q\u{1}".utf8)
        let doubling = Array("()q\u{1}".utf8) + Array(repeating: twice, count: 1000).joined() + Array("t".utf8)
        for harmless in [nested, cycle, doubling] {
            #expect(try open(torchZip(accepted(harmless))).names == ["t"])
        }
        let flood = Pickle.start + [UInt8](repeating: UInt8(ascii: "N"), count: 1 << 18 + 1)
        expectCheckpointError(naming: folder.url, containing: "stack") { try open(torchZip(flood)) }
    }

    @Test("one remembered name set twice keeps its last tensor")
    func repeatedName() throws {
        let first = Pickle.tensor(Self.four, [4], strides: [1])
        let last = Pickle.tensor(Self.four, offset: 2, [2], strides: [1])
        let again =
            Pickle.start + Pickle.emptyDict + Pickle.text("t") + Array("q\0".utf8) + first + Pickle.setItem + Array("h\0".utf8)
            + last + Pickle.setItem + Pickle.stop
        #expect(try open(torchZip(again)).tensor("t").floats == [3, 4])
        let twice =
            Pickle.start + Pickle.emptyDict + Pickle.text("t") + first + Pickle.setItem + Pickle.text("t") + last + Pickle.setItem
            + Pickle.stop
        #expect(try open(torchZip(twice)).tensor("t").floats == [3, 4])
    }

    @Test("an expanded view larger than its file is refused only when asked for")
    func expansion() throws {
        let file = try open(torchZip(Pickle.dict(Pickle.tensor(Self.four, [1 << 40, 4], strides: [0, 1]))))
        #expect(file.descriptor("t")?.shape == [1 << 40, 4])
        expectCheckpointError(naming: folder.url, containing: "repeats its storage") { try file.tensor("t") }
    }

    @Test("old ways to write a state dict are read")
    func olderGlobals() throws {
        let plain =
            Pickle.global("torch._utils", "_rebuild_tensor")
            + Pickle.tuple(Self.four, Pickle.int(1), Pickle.tuple(Pickle.int(3)), Pickle.tuple(Pickle.int(1))) + Pickle.reduce
        #expect(try open(torchZip(Pickle.dict(plain))).tensor("t").floats == [2, 3, 4])
        // Python 2 wrote byte strings.
        let bytes = Pickle.start + Pickle.emptyDict + Array("U\u{1}t".utf8) + plain + Pickle.setItem + Pickle.stop
        #expect(try open(torchZip(bytes)).tensor("t").floats == [2, 3, 4])
    }

    private static let storages = littleEndian(Int64(4)) + littleEndian([1, 2, 3, 4] as [Float])
    private static let legacyStorage = Pickle.storage(count: 4, view: Pickle.none)
    private static let legacyGood = Pickle.dict(Pickle.tensor(legacyStorage, [4], strides: [1]))

    @Test("in the form without an archive, parts of storages are found")
    func legacyViews() throws {
        let part = Pickle.storage(count: 4, view: Pickle.tuple(Pickle.text("part"), Pickle.int(1), Pickle.int(2)))
        let pickle = Pickle.dict(Pickle.tensor(part, offset: 1, [1], strides: [1]))
        #expect(try open(torchLegacy(pickle, storages: Self.storages)).tensor("t").floats == [3])
        #expect(try open(torchLegacy(Self.legacyGood, storages: Self.storages)).tensor("t").floats == [1, 2, 3, 4])
    }

    static let brokenLegacy: [(what: String, bytes: [UInt8], word: String)] = [
        ("big-endian", torchLegacy(legacyGood, littleEndian: false, storages: storages), "little-endian"),
        ("five-part id", torchLegacy(good, storages: storages), "6 items"),
        ("unknown key", torchLegacy(legacyGood, keys: ["1"], storages: storages), "key of a storage"),
        ("repeated key", torchLegacy(legacyGood, keys: ["0", "0"], storages: storages + storages), "key of a storage"),
        ("missing key", torchLegacy(legacyGood, keys: [], storages: storages), "elements of storage 0"),
        ("other count", torchLegacy(legacyGood, storages: littleEndian(Int64(3)) + storages.dropFirst(8)), "4 elements"),
        ("cut short", torchLegacy(legacyGood, storages: storages.dropLast()), "16 bytes"),
        ("only a magic number", Array(torchLegacy(legacyGood, storages: storages).prefix(15)), "1 bytes"),
        (
            "part beyond its storage",
            torchLegacy(
                Pickle.dict(Pickle.storage(count: 4, view: Pickle.tuple(Pickle.text("p"), Pickle.int(3), Pickle.int(2)))),
                storages: storages),
            "storage view"
        ),
        ("another magic", [0x80, 2, 0x8A, 1, 5, 0x2E], "torch.save"),
        ("empty", [], "torch.save"),
        ("tar", [UInt8](repeating: 0, count: 257) + Array("ustar\0".utf8), "tar form"),
        ("pointer", Array("version https://git-lfs.github.com/spec/v1\noid sha256:0".utf8), "Git LFS"),
        ("archive cut short", Array(torchZip(good).dropLast(40)), "cut short"),
    ]

    @Test("broken files without an archive are refused", arguments: brokenLegacy)
    func legacyRefusals(what: String, bytes: [UInt8], word: String) throws {
        let file = try folder.write(bytes, to: "pytorch_model.bin")
        expectCheckpointError(naming: file, containing: word) { try TorchFile(file) }
    }
}
