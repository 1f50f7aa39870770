import Glibc
import NibbleCore

/// The directory of a zip archive. `torch.save` stores its entries as they are; other programs may deflate them. Format:
/// PKWARE's APPNOTE, with the zip64 records.
struct ZipArchive {
    struct Entry {
        /// Where the payload lies in the file.
        let payload: Range<Int>
        /// What the payload unpacks to.
        let byteCount: Int
        let isDeflated: Bool
        let checksum: UInt32
    }

    let entries: [ByteText: Entry]

    private let file: MappedFile

    static func isZip(_ file: MappedFile) -> Bool { file.bytes.starts(with: [0x50, 0x4B, 0x03, 0x04]) }

    /// - Throws: ``CheckpointError``: malformed, or an entry that is encrypted or compressed by another method than deflate.
    init(_ file: MappedFile) throws {
        self.file = file
        let directory = try Self.findDirectory(file)
        var cursor = ByteCursor(file, directory)
        var entries: [ByteText: Entry] = [:]
        while cursor.remaining > 0 {
            let record = try CentralRecord(&cursor)
            let entry = try record.entry(in: file, before: directory.lowerBound)
            guard entries.updateValue(entry, forKey: ByteText(record.name)) == nil else {
                throw file.malformed(expected: "each archive entry once", found: "a second \(record.name)")
            }
        }
        self.entries = entries
    }

    /// The content of the entries, and where each of them lies in it: the file itself, or memory that they are unpacked to
    /// if one of them is deflated.
    func content() throws -> (content: MappedFile, places: [ByteText: Range<Int>]) {
        guard entries.values.contains(where: \.isDeflated) else { return (file, entries.mapValues(\.payload)) }
        var places: [ByteText: Range<Int>] = [:]
        var end = 0
        for (name, entry) in entries {
            let start = (end + 63) / 64 * 64
            let (next, overflow) = start.addingReportingOverflow(entry.byteCount)
            guard !overflow, next <= Self.unpackedLimit(file) else {
                throw CheckpointError.refused(
                    file: file.path, what: "it claims to unpack to more than 64 times its size, which weights never do")
            }
            places[name] = start..<next
            end = next
        }
        let storage = try Self.reserve(end, file)
        for (name, entry) in entries {
            guard let place = places[name] else { continue }
            try unpack(entry, named: name.text, to: UnsafeMutableRawBufferPointer(rebasing: storage.bytes[place]))
        }
        return (MappedFile(file.url, unpacked: storage.memory), places)
    }

    private static func unpackedLimit(_ file: MappedFile) -> Int { (file.byteCount + 1 << 20) * 64 }

    /// Address space only: a page takes memory when it is written, so that the size that a file claims costs nothing.
    private static func reserve(
        _ byteCount: Int, _ file: MappedFile
    ) throws -> (memory: Storage, bytes: UnsafeMutableRawBufferPointer) {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        guard byteCount > 0, let memory = mmap(nil, byteCount, PROT_READ | PROT_WRITE, flags, -1, 0), memory != MAP_FAILED else {
            throw CheckpointError.unreadable(file: file.path, reason: "no memory for the \(byteCount) bytes that it unpacks to")
        }
        let storage = Storage(device: .cpu, byteCount: byteCount, address: UInt(bitPattern: memory)) { address in
            munmap(UnsafeMutableRawPointer(bitPattern: address), byteCount)
        }
        return (storage, UnsafeMutableRawBufferPointer(start: memory, count: byteCount))
    }

    private func unpack(_ entry: Entry, named name: String, to target: UnsafeMutableRawBufferPointer) throws {
        let payload = UnsafeRawBufferPointer(rebasing: file.bytes[entry.payload])
        guard entry.isDeflated else { return target.copyMemory(from: payload) }
        do {
            try Inflate.run(payload, into: target)
        } catch {
            throw file.malformed(
                expected: "a deflated archive entry \(name) of \(entry.byteCount) bytes", found: "damaged data")
        }
        let found = CRC32.checksum(UnsafeRawBufferPointer(target))
        guard found == entry.checksum else {
            throw file.malformed(
                expected: "checksum \(String(entry.checksum, radix: 16)) of archive entry \(name)",
                found: String(found, radix: 16))
        }
    }

    /// The range of the central directory, from the record at the file's end.
    private static func findDirectory(_ file: MappedFile) throws -> Range<Int> {
        let bytes = file.bytes
        let recordLength = 22
        // A comment of up to 64 KiB may follow the record.
        let earliest = max(0, bytes.count - recordLength - 0xFFFF)
        let signature: [UInt8] = [0x50, 0x4B, 0x05, 0x06]
        let candidates = stride(from: bytes.count - recordLength, through: earliest, by: -1)
        guard let place = candidates.first(where: { bytes[$0..<$0 + 4].elementsEqual(signature) }) else {
            throw file.malformed(expected: "the directory of a zip archive", found: "none (is the file cut short?)")
        }
        var cursor = ByteCursor(file, place + 12..<bytes.count)
        var size = try UInt64(cursor.integer(UInt32.self))
        var offset = try UInt64(cursor.integer(UInt32.self))
        if size == 0xFFFF_FFFF || offset == 0xFFFF_FFFF {
            (size, offset) = try zip64Directory(file, before: place)
        }
        guard offset <= UInt64(place), size <= UInt64(place) - offset else {
            throw file.malformed(expected: "a zip directory before offset \(place)", found: "\(size) bytes at \(offset)")
        }
        return Int(offset)..<Int(offset + size)
    }

    private static func zip64Directory(_ file: MappedFile, before place: Int) throws -> (size: UInt64, offset: UInt64) {
        let locatorLength = 20
        guard place >= locatorLength else { throw file.malformed(expected: "a zip64 locator", found: "none") }
        var locator = ByteCursor(file, place - locatorLength..<place)
        let locatorSignature = try locator.integer(UInt32.self)
        _ = try locator.integer(UInt32.self)
        let recordOffset = try locator.integer(UInt64.self)
        guard locatorSignature == 0x0706_4B50, recordOffset < UInt64(place) else {
            throw file.malformed(expected: "a zip64 locator at offset \(place - locatorLength)", found: "other bytes")
        }
        var record = ByteCursor(file, Int(recordOffset)..<place)
        guard try record.integer(UInt32.self) == 0x0606_4B50 else {
            throw file.malformed(expected: "a zip64 directory record at offset \(recordOffset)", found: "other bytes")
        }
        // Record size, versions, disk numbers, entry counts.
        _ = try record.skip(8 + 2 + 2 + 4 + 4 + 8 + 8)
        let size = try record.integer(UInt64.self)
        return try (size, record.integer(UInt64.self))
    }
}

/// One entry of the central directory.
private struct CentralRecord {
    let name: String
    private let flags: UInt16
    private let method: UInt16
    private let checksum: UInt32
    private var storedSize: UInt64
    private var size: UInt64
    private var localOffset: UInt64

    init(_ cursor: inout ByteCursor) throws {
        let place = cursor.position
        guard try cursor.integer(UInt32.self) == 0x0201_4B50 else {
            throw cursor.file.malformed(expected: "a zip directory entry at offset \(place)", found: "other bytes")
        }
        _ = try cursor.skip(4)
        flags = try cursor.integer()
        method = try cursor.integer()
        _ = try cursor.skip(4)
        checksum = try cursor.integer()
        storedSize = try UInt64(cursor.integer(UInt32.self))
        size = try UInt64(cursor.integer(UInt32.self))
        let nameLength = try Int(cursor.integer(UInt16.self))
        let extraLength = try Int(cursor.integer(UInt16.self))
        let commentLength = try Int(cursor.integer(UInt16.self))
        _ = try cursor.skip(8)
        localOffset = try UInt64(cursor.integer(UInt32.self))
        name = try cursor.file.text(cursor.skip(nameLength))
        try readZip64(ByteCursor(cursor.file, cursor.skip(extraLength)))
        _ = try cursor.skip(commentLength)
    }

    /// Fields that do not fit 32 bits stand in an extra field, in this order, only those that do not fit.
    private mutating func readZip64(_ extra: ByteCursor) throws {
        var extra = extra
        while extra.remaining >= 4 {
            let kind = try extra.integer(UInt16.self)
            let field = try extra.skip(Int(extra.integer(UInt16.self)))
            guard kind == 1 else { continue }
            var values = ByteCursor(extra.file, field)
            if size == 0xFFFF_FFFF { size = try values.integer() }
            if storedSize == 0xFFFF_FFFF { storedSize = try values.integer() }
            if localOffset == 0xFFFF_FFFF { localOffset = try values.integer() }
        }
    }

    /// The payload follows the local header, whose own name and extra field decide where; its sizes may be missing.
    func entry(in file: MappedFile, before directory: Int) throws -> ZipArchive.Entry {
        guard flags & 1 == 0 else { throw CheckpointError.refused(file: file.path, what: "archive entry \(name) is encrypted") }
        guard method == 0 || method == 8 else {
            throw CheckpointError.refused(
                file: file.path, what: "archive entry \(name) is compressed by method \(method) (0 and 8 are read)")
        }
        guard method != 0 || size == storedSize, size <= UInt64(Int.max), localOffset <= UInt64(directory) else {
            throw file.malformed(
                expected: "archive entry \(name) stored before offset \(directory)",
                found: "sizes \(storedSize) and \(size) at \(localOffset)")
        }
        var cursor = ByteCursor(file, Int(localOffset)..<directory)
        let signature = try cursor.integer(UInt32.self)
        _ = try cursor.skip(22)
        let nameLength = try Int(cursor.integer(UInt16.self))
        let extraLength = try Int(cursor.integer(UInt16.self))
        let localName = try cursor.bytes(nameLength)
        _ = try cursor.skip(extraLength)
        guard signature == 0x0403_4B50, localName.elementsEqual(name.utf8) else {
            throw file.malformed(expected: "the local header of \(name) at offset \(localOffset)", found: "other bytes")
        }
        guard storedSize <= UInt64(cursor.remaining) else {
            throw file.malformed(expected: "\(storedSize) bytes of archive entry \(name)", found: "\(cursor.remaining)")
        }
        return ZipArchive.Entry(
            payload: try cursor.skip(Int(storedSize)), byteCount: Int(size), isDeflated: method == 8, checksum: checksum)
    }
}
