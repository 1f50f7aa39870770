/// The directory of a zip archive whose entries are stored, as `torch.save` writes it. Nothing is unpacked: an entry is a
/// range of the mapped file. Format: PKWARE's APPNOTE, with the zip64 records.
struct ZipArchive {
    /// Name → where the payload lies in the file.
    let entries: [String: Range<Int>]

    private let file: MappedFile

    static func isZip(_ file: MappedFile) -> Bool { file.bytes.starts(with: [0x50, 0x4B, 0x03, 0x04]) }

    /// - Throws: ``CheckpointError``: malformed, or an entry that is compressed or encrypted.
    init(_ file: MappedFile) throws {
        self.file = file
        let directory = try Self.findDirectory(file)
        var cursor = ByteCursor(file, directory)
        var entries: [String: Range<Int>] = [:]
        while cursor.remaining > 0 {
            let record = try CentralRecord(&cursor)
            let payload = try record.payload(in: file, before: directory.lowerBound)
            guard entries.updateValue(payload, forKey: record.name) == nil else {
                throw file.malformed(expected: "each archive entry once", found: "a second \(record.name)")
            }
        }
        self.entries = entries
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
        _ = try cursor.skip(8)
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
    func payload(in file: MappedFile, before directory: Int) throws -> Range<Int> {
        guard flags & 1 == 0 else { throw CheckpointError.refused(file: file.path, what: "archive entry \(name) is encrypted") }
        guard method == 0 else {
            throw CheckpointError.refused(
                file: file.path, what: "archive entry \(name) is compressed (method \(method)); weights are always stored")
        }
        guard size == storedSize, localOffset <= UInt64(directory) else {
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
        guard size <= UInt64(cursor.remaining) else {
            throw file.malformed(expected: "\(size) bytes of archive entry \(name)", found: "\(cursor.remaining)")
        }
        return try cursor.skip(Int(size))
    }
}
