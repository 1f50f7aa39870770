import NibbleCore

/// The header of one GGUF file: metadata, and the place of every tensor.
struct GGUFHeader {
    struct Entry: Sendable {
        let name: String
        let content: Content
    }

    enum Content: Sendable {
        /// - Parameter range: from the file's start.
        case elements(GGUFTensorType, Shape, range: Range<Int>)
        /// Of a type or a rank that is not supported. Only a model that uses the tensor is affected.
        case unreadable(CheckpointError)
    }

    let version: Int
    let metadata: [ByteText: GGUFValue]
    /// The bytes of each metadata entry, key included.
    let metadataRanges: [(key: String, range: Range<Int>)]
    let entries: [Entry]

    init(_ file: MappedFile) throws {
        var cursor = ByteCursor(file, 0..<file.byteCount)
        try FileKind.require(.gguf, file)
        guard file.byteCount >= 4, try cursor.bytes(4).elementsEqual("GGUF".utf8) else {
            throw file.malformed(expected: "a GGUF file", found: "another beginning")
        }
        let version = try cursor.integer(UInt32.self)
        guard version == 2 || version == 3 else {
            let isSwapped = version.byteSwapped == 2 || version.byteSwapped == 3
            throw CheckpointError.refused(
                file: file.path, what: isSwapped ? "it is big-endian" : "GGUF version \(version) is not read (2 and 3 are)")
        }
        self.version = Int(version)
        let tensorCount = try cursor.integer(UInt64.self)
        let valueCount = try cursor.integer(UInt64.self)
        (metadata, metadataRanges) = try Self.readMetadata(valueCount, &cursor)
        entries = try Self.readEntries(tensorCount, alignment: Self.alignment(metadata, file), &cursor)
    }

    private static func readMetadata(
        _ count: UInt64, _ cursor: inout ByteCursor
    ) throws -> ([ByteText: GGUFValue], [(key: String, range: Range<Int>)]) {
        var metadata: [ByteText: GGUFValue] = [:]
        var ranges: [(key: String, range: Range<Int>)] = []
        // The count is a claim: memory grows only with what is in the file.
        for _ in 0..<count {
            let start = cursor.position
            let key = try cursor.text()
            guard try metadata.updateValue(cursor.value(of: key), forKey: ByteText(key)) == nil else {
                throw cursor.file.malformed(expected: "each metadata key once", found: "a second \(key)")
            }
            ranges.append((key, start..<cursor.position))
        }
        return (metadata, ranges)
    }

    private static func alignment(_ metadata: [ByteText: GGUFValue], _ file: MappedFile) throws -> Int {
        guard let value = metadata["general.alignment"] else { return 32 }
        guard let alignment = value.int, alignment > 0, alignment & (alignment - 1) == 0, alignment <= 1 << 30 else {
            throw file.malformed(expected: "a power of two as general.alignment", found: "\(value)")
        }
        return alignment
    }

    /// A tensor as the header lists it.
    private struct Listing {
        let name: String
        let extents: [Int]
        let type: UInt32
        let offset: UInt64
    }

    private static func readEntries(_ count: UInt64, alignment: Int, _ cursor: inout ByteCursor) throws -> [Entry] {
        let file = cursor.file
        var listings: [Listing] = []
        var seen: Set<ByteText> = []
        for _ in 0..<count {
            let name = try cursor.text()
            guard seen.insert(ByteText(name)).inserted else {
                throw file.malformed(expected: "each tensor once", found: "a second \(name)")
            }
            try listings.append(
                Listing(name: name, extents: cursor.extents(of: name), type: cursor.integer(), offset: cursor.integer()))
        }
        // The data begin at the next multiple of the alignment. A file without tensors may end before it.
        let start = (cursor.position + alignment - 1) / alignment * alignment
        return try listings.map { listing in
            try Entry(name: listing.name, content: content(listing, dataStart: start, alignment: alignment, file))
        }
    }

    private static func content(
        _ listing: Listing, dataStart start: Int, alignment: Int, _ file: MappedFile
    ) throws -> Content {
        let name = listing.name
        guard let type = GGUFTensorType(rawValue: listing.type) else {
            let word = GGUFTensorType.otherTypes[listing.type] ?? "\(listing.type)"
            return .unreadable(.unknownDType(file: file.path, tensor: name, found: word))
        }
        guard listing.extents.count <= Shape.maximumRank else {
            return .unreadable(.unsupportedRank(file: file.path, tensor: name, shape: listing.extents))
        }
        let shape = try file.shape(listing.extents, of: name)
        guard shape.last % type.blockSize == 0 else {
            throw file.malformed(name, expected: "rows of whole blocks of \(type.blockSize)", found: "shape \(shape)")
        }
        guard let byteCount = type.byteCount(shape), start <= file.byteCount,
            listing.offset <= UInt64(file.byteCount - start), byteCount <= file.byteCount - start - Int(listing.offset)
        else {
            throw file.malformed(
                name, expected: "\(type) \(shape) at offset \(listing.offset) of the data",
                found: "\(max(file.byteCount - start, 0)) bytes of data")
        }
        guard listing.offset % UInt64(alignment) == 0 else {
            throw file.malformed(name, expected: "a multiple of \(alignment) as offset", found: "\(listing.offset)")
        }
        let begin = start + Int(listing.offset)
        return .elements(type, shape, range: begin..<begin + byteCount)
    }
}

extension ByteCursor {
    /// A u64 length and UTF-8.
    fileprivate mutating func text() throws -> String {
        let length = try integer(UInt64.self)
        return try file.text(skip(Int(clamping: length)))
    }

    /// Outermost first; the file lists the innermost first.
    fileprivate mutating func extents(of tensor: String) throws -> [Int] {
        let rank = try integer(UInt32.self)
        guard rank <= 64 else { throw file.malformed(tensor, expected: "at most 4 dimensions", found: "\(rank)") }
        var extents: [Int] = []
        for _ in 0..<rank { try extents.append(Int(clamping: integer(UInt64.self))) }
        return extents.reversed()
    }

    fileprivate mutating func value(of key: String) throws -> GGUFValue {
        switch try integer(UInt32.self) {
        case 0: return try .int(Int(integer(UInt8.self)))
        case 1: return try .int(Int(integer(Int8.self)))
        case 2: return try .int(Int(integer(UInt16.self)))
        case 3: return try .int(Int(integer(Int16.self)))
        case 4: return try .int(Int(integer(UInt32.self)))
        case 5: return try .int(Int(integer(Int32.self)))
        case 6: return try .double(Double(Float(bitPattern: integer())))
        case 7: return try .bool(integer(UInt8.self) != 0)
        case 8: return try .string(text())
        case 9: return try array(of: key, depth: 0)
        case 10:
            let value = try integer(UInt64.self)
            return Int(exactly: value).map(GGUFValue.int) ?? .uint(value)
        case 11: return try .int(Int(integer(Int64.self)))
        case 12: return try .double(Double(bitPattern: integer()))
        case let type: throw file.malformed(expected: "a type for the value of \(key)", found: "\(type)")
        }
    }

    /// The bytes of the smallest element of each type: what a claimed count needs at least.
    private static let elementByteCounts = [1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8]

    private mutating func array(of key: String, depth: Int) throws -> GGUFValue {
        let type = try integer(UInt32.self)
        let claimed = try integer(UInt64.self)
        guard type < Self.elementByteCounts.count, depth < 16 else {
            throw file.malformed(
                expected: "an element type for the array \(key)", found: depth < 16 ? "\(type)" : "16 levels of nesting")
        }
        guard claimed <= UInt64(remaining / Self.elementByteCounts[Int(type)]) else {
            throw file.malformed(expected: "\(claimed) elements of the array \(key)", found: "\(remaining) bytes")
        }
        let count = Int(claimed)
        switch type {
        case 0: return try .ints(list(count) { try Int($0.integer(UInt8.self)) })
        case 1: return try .ints(list(count) { try Int($0.integer(Int8.self)) })
        case 2: return try .ints(list(count) { try Int($0.integer(UInt16.self)) })
        case 3: return try .ints(list(count) { try Int($0.integer(Int16.self)) })
        case 4: return try .ints(list(count) { try Int($0.integer(UInt32.self)) })
        case 5: return try .ints(list(count) { try Int($0.integer(Int32.self)) })
        case 6: return try .doubles(list(count) { try Double(Float(bitPattern: $0.integer())) })
        case 7: return try .bools(list(count) { try $0.integer(UInt8.self) != 0 })
        case 8: return try .strings(list(count) { try $0.text() })
        case 9: return try .arrays(list(count) { try $0.array(of: key, depth: depth + 1) })
        case 10: return try .uints(list(count) { try $0.integer(UInt64.self) })
        case 11: return try .ints(list(count) { try Int($0.integer(Int64.self)) })
        default: return try .doubles(list(count) { try Double(bitPattern: $0.integer()) })
        }
    }

    private mutating func list<Element>(_ count: Int, _ read: (inout ByteCursor) throws -> Element) throws -> [Element] {
        var elements: [Element] = []
        elements.reserveCapacity(count)
        for _ in 0..<count { try elements.append(read(&self)) }
        return elements
    }
}
