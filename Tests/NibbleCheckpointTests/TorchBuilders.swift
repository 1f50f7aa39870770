import NibbleTestSupport

/// Writes zip archives the way `torch.save` does, and the ways it does not.
struct ZipBuilder {
    struct Entry {
        var name: String
        var data: [UInt8]
        var method: UInt16 = 0
        var flags: UInt16 = 0
        /// Extra bytes in the local header only: they move the payload.
        var localPadding = 0
        /// Sizes stand in the central directory alone, as with a data descriptor.
        var hasDescriptor = false
        var localName: String?
        /// Added to the size in the central directory.
        var excess = 0
        /// The size before compression, where it is another.
        var unpackedSize: Int?
    }

    var entries: [Entry] = []
    /// Every size and offset goes to zip64 records.
    var isZip64 = false
    var comment: [UInt8] = []

    func bytes() -> [UInt8] {
        var output: [UInt8] = []
        var directory: [UInt8] = []
        for entry in entries {
            let offset = output.count
            let name = Array((entry.localName ?? entry.name).utf8)
            let size = entry.hasDescriptor ? 0 : UInt32(entry.data.count)
            output += [0x50, 0x4B, 3, 4] + littleEndian(UInt16(0)) + littleEndian(entry.flags) + littleEndian(entry.method)
            output += [UInt8](repeating: 0, count: 8) + littleEndian(size) + littleEndian(size)
            output += littleEndian(UInt16(name.count)) + littleEndian(UInt16(entry.localPadding)) + name
            output += [UInt8](repeating: 0x5A, count: entry.localPadding) + entry.data
            if entry.hasDescriptor { output += [0x50, 0x4B, 7, 8] + [UInt8](repeating: 0, count: 12) }
            directory += central(entry, offset)
        }
        let start = output.count
        output += directory
        if isZip64 {
            let record = output.count
            output +=
                [0x50, 0x4B, 6, 6] + [UInt8](repeating: 0, count: 36) + littleEndian(UInt64(directory.count))
                + littleEndian(UInt64(start))
            output += [0x50, 0x4B, 6, 7] + littleEndian(UInt32(0)) + littleEndian(UInt64(record)) + littleEndian(UInt32(1))
        }
        output += [0x50, 0x4B, 5, 6] + [UInt8](repeating: 0, count: 8)
        output += littleEndian(isZip64 ? .max : UInt32(directory.count)) + littleEndian(isZip64 ? .max : UInt32(start))
        return output + littleEndian(UInt16(comment.count)) + comment
    }

    private func central(_ entry: Entry, _ offset: Int) -> [UInt8] {
        let size = entry.data.count + entry.excess
        let narrow = isZip64 ? littleEndian(UInt32.max) : littleEndian(UInt32(size))
        var extra: [UInt8] = [9, 9, 1, 0, 0]
        if isZip64 {
            extra += littleEndian(UInt16(1)) + littleEndian(UInt16(24)) + littleEndian(UInt64(size)) + littleEndian(UInt64(size))
            extra += littleEndian(UInt64(offset))
        }
        let unpacked = entry.unpackedSize.map { littleEndian(UInt32($0)) } ?? narrow
        var record: [UInt8] = [0x50, 0x4B, 1, 2, 0, 0, 0, 0] + littleEndian(entry.flags) + littleEndian(entry.method)
        record += [UInt8](repeating: 0, count: 8) + narrow + unpacked
        record += littleEndian(UInt16(entry.name.utf8.count)) + littleEndian(UInt16(extra.count)) + littleEndian(UInt16(0))
        record += [UInt8](repeating: 0, count: 8) + littleEndian(isZip64 ? .max : UInt32(offset))
        return record + entry.name.utf8 + extra
    }
}

/// The opcodes of a pickle, by hand.
enum Pickle {
    static let start: [UInt8] = [0x80, 2]
    static let stop: [UInt8] = Array(".".utf8)
    static let mark: [UInt8] = Array("(".utf8)
    static let emptyTuple: [UInt8] = Array(")".utf8)
    static let emptyDict: [UInt8] = Array("}".utf8)
    static let reduce: [UInt8] = Array("R".utf8)
    static let setItem: [UInt8] = Array("s".utf8)

    static func text(_ text: String) -> [UInt8] { Array("X".utf8) + littleEndian(UInt32(text.utf8.count)) + text.utf8 }
    static func global(_ module: String, _ name: String) -> [UInt8] { Array("c\(module)\n\(name)\n".utf8) }
    static func int(_ value: Int) -> [UInt8] { [0x8A, 8] + littleEndian(Int64(value)) }
    static func tuple(_ items: [UInt8]...) -> [UInt8] { mark + items.joined() + Array("t".utf8) }
    static func list(_ items: [UInt8]...) -> [UInt8] { Array("](".utf8) + items.joined() + Array("e".utf8) }
    static let none: [UInt8] = Array("N".utf8)

    static func storage(
        _ type: String = "FloatStorage", module: String = "torch", key: String = "0", count: Int, view: [UInt8]? = nil
    ) -> [UInt8] {
        let head = text("storage") + global(module, type) + text(key) + text("cpu") + int(count)
        return mark + head + (view ?? []) + Array("tQ".utf8)
    }

    static func tensor(_ storage: [UInt8], offset: Int = 0, _ sizes: [Int], strides: [Int]) -> [UInt8] {
        global("torch._utils", "_rebuild_tensor_v2")
            + tuple(
                storage, int(offset), mark + sizes.flatMap(int) + Array("t".utf8), mark + strides.flatMap(int) + Array("t".utf8),
                [0x89],
                global("collections", "OrderedDict") + emptyTuple + reduce) + reduce
    }

    /// A dict with one entry, as a value.
    static func dictValue(_ name: String, _ value: [UInt8]) -> [UInt8] { emptyDict + text(name) + value + setItem }

    /// A whole pickle: a dict with one entry.
    static func dict(_ value: [UInt8], name: String = "t") -> [UInt8] { start + emptyDict + text(name) + value + setItem + stop }
}

/// A zip checkpoint with this pickle and one storage of four floats, 1 … 4.
func torchZip(_ pickle: [UInt8], change: (inout ZipBuilder) -> Void = { _ in }) -> [UInt8] {
    var builder = ZipBuilder()
    builder.entries = [
        .init(name: "any/data.pkl", data: pickle),
        .init(name: "any/data/0", data: littleEndian([1, 2, 3, 4] as [Float]), localPadding: 7),
        .init(name: "any/version", data: Array("3\n".utf8)),
    ]
    change(&builder)
    return builder.bytes()
}

/// The form without a zip archive: this object, these keys, and then whatever follows.
func torchLegacy(_ object: [UInt8], keys: [String] = ["0"], littleEndian isLittle: Bool = true, storages: [UInt8]) -> [UInt8] {
    let magic: [UInt8] = [0x80, 2, 0x8A, 10, 0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19, 0x2E]
    let facts =
        Pickle.start + Pickle.emptyDict + Pickle.text("little_endian") + [isLittle ? 0x88 : 0x89] + Pickle.setItem + Pickle.stop
    let list = Pickle.start + Array("](".utf8) + keys.flatMap(Pickle.text) + Array("e.".utf8)
    return magic + Pickle.start + Pickle.int(1001) + Pickle.stop + facts + object + list + storages
}
