import NibbleCore

/// The header of a GGUF file: metadata, and the place of every tensor.
struct GGUFHeader {
    struct Entry: Sendable {
        let name: String
        let type: GGUFTensorType
        let shape: Shape
        /// From the file's start.
        let range: Range<Int>
    }

    let version: Int
    let metadata: [String: GGUFValue]
    let metadataRange: Range<Int>
    let entries: [Entry]

    init(_ file: MappedFile) throws {
        var cursor = ByteCursor(file, 0..<file.byteCount)
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
        let start = cursor.position
        metadata = try Self.readMetadata(valueCount, &cursor)
        metadataRange = start..<cursor.position
        let alignment = try Self.alignment(metadata, file)
        entries = try Self.readEntries(tensorCount, alignment: alignment, &cursor)
    }

    private static func readMetadata(_ count: UInt64, _ cursor: inout ByteCursor) throws -> [String: GGUFValue] {
        var metadata: [String: GGUFValue] = [:]
        // Counts are claims: memory grows only with what is really there.
        for _ in 0..<count {
            let key = try cursor.text()
            guard try metadata.updateValue(cursor.value(of: key), forKey: key) == nil else {
                throw cursor.file.malformed(expected: "each metadata key once", found: "a second \(key)")
            }
        }
        return metadata
    }

    private static func alignment(_ metadata: [String: GGUFValue], _ file: MappedFile) throws -> Int {
        guard let value = metadata["general.alignment"] else { return 32 }
        guard let alignment = value.int, alignment > 0, alignment & (alignment - 1) == 0, alignment <= 1 << 30 else {
            throw file.malformed(expected: "a power of two as general.alignment", found: "\(value)")
        }
        return alignment
    }

    private static func readEntries(_ count: UInt64, alignment: Int, _ cursor: inout ByteCursor) throws -> [Entry] {
        let file = cursor.file
        var outlines: [(name: String, type: GGUFTensorType, shape: Shape, offset: UInt64)] = []
        var seen: Set<String> = []
        for _ in 0..<count {
            let name = try cursor.text()
            guard seen.insert(name).inserted else {
                throw file.malformed(expected: "each tensor once", found: "a second \(name)")
            }
            let shape = try cursor.shape(of: name)
            let type = try tensorType(cursor.integer(), of: name, file)
            guard shape.last % type.blockSize == 0 else {
                throw file.malformed(name, expected: "rows of whole blocks of \(type.blockSize)", found: "shape \(shape)")
            }
            try outlines.append((name, type, shape, cursor.integer()))
        }
        // The data begin at the next multiple of the alignment. A file without tensors may end before it.
        let start = (cursor.position + alignment - 1) / alignment * alignment
        return try outlines.map { outline in
            guard let byteCount = outline.type.byteCount(outline.shape), start <= file.byteCount,
                outline.offset <= UInt64(file.byteCount - start), byteCount <= file.byteCount - start - Int(outline.offset)
            else {
                throw file.malformed(
                    outline.name, expected: "\(outline.type) \(outline.shape) at offset \(outline.offset) of the data",
                    found: "\(max(file.byteCount - start, 0)) bytes of data")
            }
            guard outline.offset % UInt64(alignment) == 0 else {
                throw file.malformed(outline.name, expected: "a multiple of \(alignment) as offset", found: "\(outline.offset)")
            }
            let begin = start + Int(outline.offset)
            return Entry(name: outline.name, type: outline.type, shape: outline.shape, range: begin..<begin + byteCount)
        }
    }

    private static func tensorType(_ number: UInt32, of tensor: String, _ file: MappedFile) throws -> GGUFTensorType {
        if let type = GGUFTensorType(rawValue: number) { return type }
        let others: [UInt32: String] = [
            9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL",
            21: "IQ3_S",
            22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
        ]
        throw CheckpointError.unknownDType(file: file.path, tensor: tensor, found: others[number] ?? "\(number)")
    }
}

extension ByteCursor {
    /// A u64 length and UTF-8.
    fileprivate mutating func text() throws -> String {
        let length = try integer(UInt64.self)
        return try file.text(skip(Int(clamping: length)))
    }

    /// Extents from the innermost outwards.
    fileprivate mutating func shape(of tensor: String) throws -> Shape {
        let rank = try integer(UInt32.self)
        guard rank <= 64 else { throw file.malformed(tensor, expected: "at most 4 dimensions", found: "\(rank)") }
        var extents: [Int] = []
        for _ in 0..<rank { try extents.append(Int(clamping: integer(UInt64.self))) }
        return try file.shape(extents.reversed(), of: tensor)
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
        case 9: return try array(of: key)
        case 10:
            let value = try integer(UInt64.self)
            return Int(exactly: value).map(GGUFValue.int) ?? .uint(value)
        case 11: return try .int(Int(integer(Int64.self)))
        case 12: return try .double(Double(bitPattern: integer()))
        case let type: throw file.malformed(expected: "a type for the value of \(key)", found: "\(type)")
        }
    }

    private mutating func array(of key: String) throws -> GGUFValue {
        let type = try integer(UInt32.self)
        let claimed = try integer(UInt64.self)
        let width = [1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8]
        guard type < width.count, width[Int(type)] > 0 else {
            throw file.malformed(expected: "an element type for the array \(key)", found: "\(type)")
        }
        guard claimed <= UInt64(remaining / width[Int(type)]) else {
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
